"""A farm of this machine for each test, and the check that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

import afarm
from tests.farm.waiting import alive, descendants, until


@pytest_asyncio.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Fail the test if a process is left behind."""
    before = set(descendants())
    yield
    await until(lambda: not [pid for pid in set(descendants()) - before if alive(pid)], 10)


@pytest_asyncio.fixture
async def farm(nothing_left: None) -> AsyncIterator[afarm.Farm]:
    """A farm of this machine with four slots."""
    async with afarm.Farm([afarm.LocalNode(cores=4, memory="8 GiB")], progress=False) as farm:
        yield farm


@pytest.fixture(params=["fork", "reuse"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Each isolation in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def executor_farm() -> Iterator[tuple[asyncio.Runner, afarm.Farm]]:
    """A farm that serves many examples of a property, and the loop that it lives on."""
    with asyncio.Runner() as runner:
        farm = runner.run(afarm.Farm([afarm.LocalNode(cores=4)], progress=False).open())
        yield runner, farm
        runner.run(farm.close())
