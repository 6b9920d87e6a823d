"""Calls that need more than was predicted of them, on a real node."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import afarm

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MIB = 1 << 20


def hold(mebibytes: int, release: str = "", steps: int = 10) -> int:
    """Take memory step by step, and keep it until a file appears."""
    held = []
    for _ in range(steps):
        held.append(b"x" * (mebibytes * MIB // steps))
        time.sleep(0.02)
    while release and not os.path.exists(release):
        time.sleep(0.01)
    return sum(map(len, held)) // MIB


async def test_a_call_that_outgrows_its_prediction_goes_on_with_more() -> None:
    node = afarm.LocalNode(cores=2, memory="4 GiB")
    async with afarm.Farm([node], progress=False, isolation="fork") as farm:
        await asyncio.gather(*(farm.submit(hold, 5) for _ in range(8)))
        large = farm.submit(hold, 600)
        assert await large == 600
        [attempt] = large.attempts
        assert attempt.outcome == "returned"
        assert attempt.usage is not None
        assert attempt.usage.memory > 600 * MIB
        assert (attempt.allocation.memory or 0) >= 500 * MIB


async def test_what_is_stated_is_still_a_limit() -> None:
    async with afarm.Farm(progress=False, isolation="fork") as farm:
        with pytest.raises(afarm.ResourceExhausted):
            await farm.options(memory="100 MiB").submit(hold, 300)


async def test_no_call_may_outgrow_its_node() -> None:
    node = afarm.LocalNode(cores=1, memory="300 MiB")
    async with afarm.Farm([node], progress=False, isolation="fork") as farm:
        with pytest.raises(afarm.ResourceExhausted):
            await farm.submit(hold, 500)


async def test_of_two_that_do_not_both_fit_the_newer_makes_room_and_both_return(
    tmp_path: object,
) -> None:
    release = f"{tmp_path}/release"
    node = afarm.LocalNode(cores=2, memory="1 GiB")
    async with afarm.Farm([node], progress=False, isolation="fork", retries=1) as farm:
        await asyncio.gather(*(farm.submit(hold, 5) for _ in range(8)))
        first = farm.submit(hold, 650, release)
        async with asyncio.timeout(60):
            while first.usage is None or first.usage.memory < 600 * MIB:
                await asyncio.sleep(0.01)
            second = farm.submit(hold, 650, release)
            while farm.stats().evictions == 0:
                await asyncio.sleep(0.01)
            open(release, "w").close()
            assert await asyncio.gather(first, second) == [650, 650]
        assert len(first.attempts) == 1
        assert len(second.attempts) >= 2
        assert farm.stats().evictions >= 1
