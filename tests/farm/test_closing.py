"""The end of a farm while something is still under way."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path

import psutil
import pytest

import afarm
from tests.farm import functions as do
from tests.farm.test_life import start
from tests.farm.waiting import alive, pid_in, until


def local() -> afarm.Farm:
    return afarm.Farm([afarm.LocalNode(cores=2)], progress=False)


async def test_close_with_cancel_ends_a_close_that_waits(nothing_left: None) -> None:
    farm = await local().open()
    call = farm.submit(do.sleep, 600)
    patient = asyncio.create_task(farm.close())
    await until(lambda: "closing" in repr(farm))
    await asyncio.wait_for(farm.close(cancel=True), 10)
    assert call.cancelled()
    assert "closed" in repr(farm)
    await asyncio.wait_for(patient, 10)


async def test_a_second_close_waits_for_the_same_end(nothing_left: None) -> None:
    farm = await local().open()
    call = farm.submit(do.sleep, 0.5, "result")
    first = asyncio.create_task(farm.close())
    await until(lambda: "closing" in repr(farm))
    await farm.close()
    assert call.result() == "result"
    await first


async def test_a_stream_that_nobody_began_does_not_hold_up_the_end(nothing_left: None) -> None:
    async with asyncio.timeout(20), local() as farm:
        farm.stream(do.numbers, 10_000)
        closed = farm.stream(do.numbers, 10_000)
        await closed.aclose()  # type: ignore[attr-defined]
        gc.collect()
        await until(lambda: farm.stats().cancelled == 2)


async def test_a_stream_left_by_its_task_does_not_hold_up_the_end(nothing_left: None) -> None:
    async with asyncio.timeout(20):
        async with local() as farm:
            held = farm.stream(do.numbers, 10_000)
            assert await anext(held) == 0
        assert farm.stats().cancelled == 1


async def test_a_stream_that_another_task_takes_is_waited_for(nothing_left: None) -> None:
    async def take(farm: afarm.Farm) -> int:
        count = 0
        async for _ in farm.stream(do.numbers, 200):
            count += 1
            await asyncio.sleep(0)
        return count

    async with asyncio.timeout(20):
        async with local() as farm:
            taker = asyncio.create_task(take(farm))
            await until(lambda: farm.stats().waiting + farm.stats().running)
        assert await taker == 200


async def test_a_removal_under_way_ends_with_the_farm(nothing_left: None) -> None:
    farm = await local().open()
    call = farm.submit(do.sleep, 0.5)
    await until(lambda: call.state == "running")
    removal = asyncio.create_task(farm.remove_node("local"))
    await until(lambda: farm.nodes[0].state == "draining")
    await farm.close()
    await asyncio.wait_for(removal, 10)


async def test_a_node_being_added_is_refused_when_the_farm_closes(nothing_left: None) -> None:
    farm = await local().open()
    silent = afarm.CommandNode(["/bin/sh", "-c", "exec sleep 600"], name="silent")
    adding = asyncio.create_task(farm.add_node(silent))
    await until(lambda: len(farm.nodes) == 2)
    await farm.close()
    with pytest.raises(afarm.NodeError, match="closed before the node was up"):
        await asyncio.wait_for(adding, 10)


async def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "pid")
    process = start(f"await farm.submit(do.touch_and_wait, {path!r})")
    pid = await pid_in(tmp_path / "pid")
    agents = psutil.Process(process.pid).children()
    for agent in agents:
        agent.suspend()  # so that no kill is ever told
    try:
        process.send_signal(signal.SIGINT)
        with pytest.raises(asyncio.TimeoutError):
            await until(lambda: process.poll() is not None, 1)
        process.send_signal(signal.SIGINT)
        await until(lambda: process.poll() is not None, 4)
    finally:
        for agent in agents:
            agent.resume()
        process.kill()
        process.communicate()
    await until(lambda: not alive(pid), 6)
