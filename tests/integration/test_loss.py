"""Several hosts with their own disks and networks; some are cut off, crash or hang."""

from __future__ import annotations

import asyncio
import collections

import pytest

import afarm
from tests.farm import functions as do
from tests.farm.waiting import until
from tests.hosts import Testbed

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def on(calls: list[afarm.Invocation[int]], node: str) -> int:
    """Return how many calls run on a node."""
    return sum(
        call.state == "running" and bool(call.attempts) and call.attempts[-1].node == node
        for call in calls
    )


async def test_three_hosts_one_cut_off_one_crashed_and_no_result_is_lost(
    testbed: Testbed,
) -> None:
    nodes = testbed.up(3, "--show-cores", "4")
    async with afarm.Farm(nodes, progress=False) as farm:
        await until(lambda: all(node.state == "up" for node in farm.nodes))
        calls = [farm.submit(do.sleep, 1.0, n) for n in range(60)]
        await until(lambda: all(on(calls, node.name) for node in nodes), 30)
        testbed.run("cut", "h1")
        testbed.run("crash", "h2")
        assert await asyncio.gather(*calls) == list(range(60))
        used = collections.Counter(call.attempts[-1].node for call in calls)
        assert used["h3"] > 0
        assert farm.stats().lost > 0
        states = {node.name: node for node in farm.nodes}
        assert states["h3"].state == "up"
        assert states["h2"].reason
        testbed.run("heal", "h1")
        testbed.run("boot", "h2")
        await until(lambda: all(node.state == "up" for node in farm.nodes), 60)
        assert await farm.options(node="h1").submit(do.add, 1) == 2
        assert await farm.options(node="h2").submit(do.add, 1) == 2


async def test_a_host_that_hangs_is_given_up_and_used_again_when_it_is_back(
    testbed: Testbed,
) -> None:
    nodes = testbed.up(2, "--show-cores", "2")
    async with afarm.Farm(nodes, progress=False) as farm:
        await until(lambda: all(node.state == "up" for node in farm.nodes))
        calls = [farm.submit(do.sleep, 1.0, n) for n in range(8)]
        await until(lambda: all(on(calls, node.name) for node in nodes), 30)
        testbed.run("freeze", "h1")
        try:
            assert await asyncio.gather(*calls) == list(range(8))
        finally:
            testbed.run("thaw", "h1")
        await until(lambda: all(node.state == "up" for node in farm.nodes), 60)
        assert await farm.options(node="h1").submit(do.add, 1) == 2
