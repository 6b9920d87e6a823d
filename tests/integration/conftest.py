"""Fixtures of the tests that need real nodes."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["fork", "reuse"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Each isolation in turn."""
    return str(request.param)
