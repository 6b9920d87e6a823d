"""The public fakes: a farm over nodes that run nothing, and a clock that can be turned."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import afarm
from afarm.testing import Answer, Received, StillNode, TurnedLoop
from tests.farm.waiting import until

GIB = 1 << 30


def never(*_: Any) -> None:
    raise AssertionError("this runs nowhere")


def double(call: Received) -> object:
    args, _ = call.arguments()
    return args[0] * 2


async def test_calls_are_answered_and_run_nowhere() -> None:
    node = StillNode(double)
    async with afarm.Farm([node], progress=False) as farm:
        found = await asyncio.gather(*(farm.submit(never, n) for n in range(500)))
    assert found == [2 * n for n in range(500)]
    assert {call.category for call in node.received} == {f"{__name__}.never"}


async def test_an_answer_says_what_a_call_used() -> None:
    used = afarm.Usage(wall_time=60, cpu_user=50, memory=3 * GIB)
    async with afarm.Farm([StillNode(lambda _: Answer(1, usage=used))], progress=False) as farm:
        invocation = farm.submit(never)
        assert await invocation == 1
        assert invocation.usage == used
        [node] = farm.nodes
        assert (node.capacity.cores, node.capacity.memory) == (4, 8 * GIB)


async def test_errors_arrive_as_themselves() -> None:
    def answer(call: Received) -> object:
        if call.arguments()[0] == (1,):
            return Answer(error=KeyError("missing"))
        raise ValueError("the answer's own")

    async with afarm.Farm([StillNode(answer)], progress=False) as farm:
        with pytest.raises(KeyError, match="missing"):
            await farm.submit(never, 1)
        with pytest.raises(ValueError, match="the answer's own"):
            await farm.submit(never, 2)


async def test_a_call_that_outgrows_its_size_is_tried_again_with_more() -> None:
    def answer(call: Received) -> object:
        assert call.limits.memory is not None
        if call.limits.memory < 4 * GIB:
            return Answer(exhausted="memory", usage=afarm.Usage(memory=call.limits.memory))
        return "done"

    node = StillNode(answer)
    async with afarm.Farm([node], progress=False) as farm:
        assert await farm.submit(never) == "done"
        with pytest.raises(afarm.ResourceExhausted):
            await farm.options(memory="1 GiB").submit(never)
    assert [call.limits.memory for call in node.received][-1] == GIB


async def test_what_is_held_back_can_be_cancelled_or_lost() -> None:
    node = StillNode(lambda _: "here")
    async with afarm.Farm([node], progress=False) as farm:
        node.hold()
        first, second = (farm.options(cores=4).submit(never) for _ in range(2))
        await until(lambda: first.state == "running")
        assert second.state == "waiting"
        first.cancel()
        await until(lambda: second.state == "running")
        node.lose()
        await until(lambda: len(node.received) == 3)
        node.release()
        assert await second == "here"
        assert [attempt.outcome for attempt in second.attempts] == ["lost", "returned"]


async def test_large_arguments_arrive() -> None:
    node = StillNode(lambda call: len(call.arguments()[0][0]))
    async with afarm.Farm([node], progress=False) as farm:
        assert await farm.submit(never, bytes(10_000_000)) == 10_000_000


def test_a_turned_clock_makes_hours_pass_at_once() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnedLoop)
        began = loop.time()
        sleeping = asyncio.ensure_future(asyncio.sleep(3600))
        await asyncio.sleep(0)
        loop.turn(3600)
        await sleeping
        with pytest.raises(ValueError, match="forward"):
            loop.turn(-1)
        return loop.time() - began

    with asyncio.Runner(loop_factory=TurnedLoop) as runner:
        assert 3600 <= runner.run(run()) < 3700


def test_what_is_no_resource_cannot_run_out() -> None:
    with pytest.raises(ValueError, match="no resource"):
        Answer(exhausted="patience")
