"""`Farm.explain` of calls that wait, run and are over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import afarm
from tests.farm import functions as do
from tests.farm.waiting import until


async def test_a_call_that_waits_says_what_is_full(farm: afarm.Farm, tmp_path: Path) -> None:
    whole = farm.options(cores=4, memory="1 GiB")
    first = whole.submit(do.sleep, 60)
    await until(lambda: first.state == "running")
    second = whole.submit(do.sleep, 60)
    dependent = farm.submit(do.echo, second)
    await until(lambda: farm.explain(second).nodes)
    told = farm.explain(second)
    assert told.state == "waiting"
    assert told.reason == "no node has room for it now"
    [verdict] = told.nodes
    assert verdict.why == "full: cores: 0 of 4 free, 4 wanted"
    assert "cores, memory stated" in str(told)
    assert "node local: full" in str(told)
    # Before that it is found out what its function needs, which takes a while on a busy machine.
    await until(lambda: repr(second) in farm.explain(dependent).reason)
    running = farm.explain(first)
    assert running.reason == "it runs on node local, which had room for it"
    assert running.nodes == ()
    for one in (dependent, second, first):
        one.cancel()
    await asyncio.wait([first, second, dependent])


async def test_a_call_that_is_over_says_where_it_went(farm: afarm.Farm) -> None:
    for _ in range(3):
        await farm.submit(do.add, 1)
    done = farm.submit(do.add, 1)
    await done
    await until(lambda: farm.explain(done).state == "done")
    told = str(farm.explain(done))
    assert "on node local, ended: returned" in told
    assert "attempt 1 on node local: returned after" in told
    assert "memory predicted from 4 calls of its category" in told


async def test_what_is_no_invocation_of_this_farm_is_refused(farm: afarm.Farm) -> None:
    with pytest.raises(TypeError, match=r"what submit\(\) returned"):
        farm.explain(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another farm"):
        afarm.Farm().explain(farm.submit(do.add, 1))
