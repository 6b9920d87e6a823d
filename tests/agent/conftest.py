"""An agent for each module of tests, and agents of their own for tests that end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .driver import Driver


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """An agent that has an environment; the tests of a module share it."""
    made = Driver(tmp_path_factory.mktemp("agent"))
    made.in_place()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts an agent of the test's own."""
    made: list[Driver] = []

    def start(scratch: Path | None = None, *, preload: list[str] | None = None, **options: object):
        driver = Driver(scratch or tmp_path / f"agent{len(made)}", **options)  # type: ignore[arg-type]
        made.append(driver)
        driver.in_place(preload)
        return driver

    yield start
    for driver in made:
        driver.close()
