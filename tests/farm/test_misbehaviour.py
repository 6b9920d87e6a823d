"""Whatever a function does, its neighbours are undisturbed and its caller gets the truth."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

import afarm
from tests.farm import functions as do
from tests.farm.waiting import alive, pid_in, until


@pytest.mark.parametrize(
    ("function", "argument", "code", "number"),
    [
        (do.leave, 3, 3, None),
        (do.leave_at_once, 4, 4, None),
        (do.leave_at_once, 0, 0, None),
        (do.signal_self, signal.SIGSEGV, None, signal.SIGSEGV),
        (do.signal_self, signal.SIGABRT, None, signal.SIGABRT),
        (do.signal_self, signal.SIGKILL, None, signal.SIGKILL),
    ],
)
async def test_a_process_that_ends_is_a_crash_that_says_how(
    farm: afarm.Farm,
    isolation: str,
    function: object,
    argument: int,
    code: int | None,
    number: int | None,
) -> None:
    view = farm.options(isolation=isolation)
    neighbours = [view.submit(do.sleep, 0.3, n) for n in range(3)]
    with pytest.raises(afarm.InvocationCrashed) as caught:
        await view.submit(function, argument)  # type: ignore[arg-type]
    assert (caught.value.exit_code, caught.value.signal) == (code, number)
    assert await asyncio.gather(*neighbours) == [0, 1, 2]
    assert await view.submit(do.add, 1) == 2


async def test_a_call_that_kills_its_supervisor_is_a_crash(
    farm: afarm.Farm, isolation: str
) -> None:
    view = farm.options(isolation=isolation)
    neighbour = view.submit(do.sleep, 0.5, "ok")
    with pytest.raises(afarm.InvocationCrashed):
        await view.submit(do.kill_parent)
    assert await neighbour == "ok"
    assert await view.submit(do.add, 1) == 2


async def test_a_result_that_goes_down_with_its_supervisor_is_made_again(
    nothing_left: None,
) -> None:
    """The next call of its lane begins while the result is on its way, and kills what it shares."""
    async with afarm.Farm([afarm.LocalNode(cores=1)], progress=False) as farm:
        view = farm.options(isolation="fork", category="lane")
        assert await view.submit(do.add, 1) == 2
        result = view.submit(do.blob, 200_000_000)
        killer = view.submit(do.kill_parent)
        with pytest.raises(afarm.InvocationCrashed):
            await killer
        assert len(await result) == 200_000_000
        assert await view.submit(do.add, 1) == 2


@pytest.mark.parametrize("how", ["kill", "killpg"])
async def test_a_call_that_kills_its_process_group_kills_only_itself(
    farm: afarm.Farm, isolation: str, how: str
) -> None:
    view = farm.options(isolation=isolation)
    neighbour = view.submit(do.sleep, 0.5, "ok")
    with pytest.raises(afarm.InvocationCrashed) as caught:
        await view.submit(do.kill_group, how)
    assert caught.value.signal == signal.SIGKILL
    assert await neighbour == "ok"
    assert len(neighbour.attempts) == 1
    assert farm.stats().lost == 0


async def test_the_end_of_the_output_is_with_the_crash(farm: afarm.Farm, isolation: str) -> None:
    with pytest.raises(afarm.InvocationCrashed) as caught:
        await farm.options(isolation=isolation).submit(do.print_and_fail)
    assert "to standard output" in str(caught.value)
    assert "and from C to standard error" in str(caught.value)


async def test_what_a_call_prints_is_its_own(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    calls = [view.submit(do.print_and_return, f"call {n}") for n in range(20)]
    await asyncio.gather(*calls)
    assert [call.output.strip() for call in calls] == [f"call {n}" for n in range(20)]


async def test_closing_the_standard_streams_does_no_harm(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    assert await view.submit(do.close_standard_streams) == "closed"
    assert await view.submit(do.add, 1) == 2


@pytest.mark.slow
async def test_printing_without_end_does_no_harm(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    call = view.submit(do.print_much, 200)
    assert await view.submit(do.add, 1) == 2
    assert await call == 200
    assert len(call.output) < 1 << 20
    assert "left out" in call.output


async def test_state_that_a_call_changed_is_restored(farm: afarm.Farm) -> None:
    view = farm.options(isolation="reuse", node="local")
    before = await view.submit(do.read_state)
    await view.submit(do.change_state)
    after = [await view.submit(do.read_state) for _ in range(4)]
    assert {state[1:] for state in after} == {before[1:]}


async def test_globals_persist_under_reuse_and_not_under_fork(farm: afarm.Farm) -> None:
    forked = farm.options(isolation="fork")
    assert [await forked.submit(do.count_calls) for _ in range(3)] == [1, 1, 1]
    async with afarm.Farm([afarm.LocalNode(cores=1)], progress=False) as single:
        reused = single.options(isolation="reuse")
        assert [await reused.submit(do.count_calls) for _ in range(3)] == [1, 2, 3]


async def test_a_worker_with_threads_left_is_replaced(nothing_left: None) -> None:
    async with afarm.Farm([afarm.LocalNode(cores=1)], progress=False) as single:
        view = single.options(isolation="reuse")
        dirty = await view.submit(do.leave_a_thread)
        assert await view.submit(do.pid) != dirty


async def test_processes_left_behind_are_gone_when_the_call_is_over(
    farm: afarm.Farm, isolation: str, tmp_path: Path
) -> None:
    await farm.options(isolation=isolation).submit(do.spawn_stubborn, str(tmp_path / "pid"))
    assert not alive(await pid_in(tmp_path / "pid"))


async def test_cancelling_kills_the_whole_tree_and_only_then_frees_its_room(
    farm: afarm.Farm, isolation: str, tmp_path: Path
) -> None:
    view = farm.options(isolation=isolation, cores=4)
    call = view.submit(do.spawn_stubborn_and_wait, str(tmp_path / "pid"))
    pid = await pid_in(tmp_path / "pid")
    next_call = view.submit(os.path.exists, f"/proc/{pid}/exe")
    began = time.monotonic()
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not alive(pid), 5)
    assert time.monotonic() - began < 2
    assert await next_call is False


async def test_cancelled_before_its_start_it_never_starts(
    farm: afarm.Farm, isolation: str, tmp_path: Path
) -> None:
    view = farm.options(isolation=isolation, cores=4)
    running = view.submit(do.sleep, 0.3)
    waiting = view.submit(do.append_line, str(tmp_path / "never"))
    waiting.cancel()
    await running
    assert await view.submit(do.add, 1) == 2
    assert not (tmp_path / "never").exists()


async def test_a_timeout_kills(farm: afarm.Farm, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            call = farm.submit(do.touch_and_wait, str(tmp_path / "pid"))
            pid = await pid_in(tmp_path / "pid")
            limit.reschedule(asyncio.get_running_loop().time())
            await call
    await until(lambda: not alive(pid), 5)


# --- limits


async def test_a_stated_memory_limit_is_enforced(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation, memory="100 MiB")
    with pytest.raises(afarm.ResourceExhausted) as caught:
        await view.submit(do.take_memory, 300 << 20, 30.0)
    assert caught.value.resource == "memory"
    assert caught.value.limit == 100 << 20
    assert "of its 100.0 MiB on node local" in str(caught.value)
    assert len((caught.value.usage and [caught.value.usage]) or []) == 1
    assert await view.submit(do.add, 1) == 2


async def test_a_short_breach_of_a_stated_limit_is_told(farm: afarm.Farm, isolation: str) -> None:
    with pytest.raises(afarm.ResourceExhausted):
        await farm.options(isolation=isolation, memory="100 MiB").submit(do.take_memory, 300 << 20)


async def test_a_wall_time_limit_is_enforced(farm: afarm.Farm, isolation: str) -> None:
    began = time.monotonic()
    with pytest.raises(afarm.InvocationTimeout, match=r"wall time of 0\.5 s") as caught:
        await farm.options(isolation=isolation, wall_time=0.5).submit(do.sleep, 60)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 5


async def test_a_cpu_time_limit_is_enforced(farm: afarm.Farm, isolation: str) -> None:
    with pytest.raises(afarm.ResourceExhausted) as caught:
        await farm.options(isolation=isolation, cpu_time=0.4).submit(do.burn, 60)
    assert caught.value.resource == "cpu_time"


async def test_a_disk_limit_is_enforced(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation, disk="10 MiB")
    with pytest.raises(afarm.ResourceExhausted) as caught:
        await view.submit(do.write_file, 40 << 20, 30.0)
    assert caught.value.resource == "disk"


async def test_what_was_predicted_too_small_is_tried_again_with_more(nothing_left: None) -> None:
    node = afarm.LocalNode(cores=4, memory="1 GiB")
    async with afarm.Farm([node], progress=False) as farm:
        call = farm.submit(do.take_memory, 600 << 20, 0.5)
        assert await call == 600 << 20
        outcomes = [attempt.outcome for attempt in call.attempts]
        assert outcomes[-1] == "returned"
        assert set(outcomes[:-1]) <= {"exhausted memory"}
        sizes = [attempt.allocation.memory or 0 for attempt in call.attempts]
        assert sizes == sorted(sizes)
