"""One farm of this machine for the tests of other systems on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import afarm


@pytest.fixture(scope="module")
def executor() -> Iterator[afarm.Executor]:
    with afarm.Executor([afarm.LocalNode(cores=2)], progress=False) as executor:
        yield executor
