"""Calls that psutil looks at, as on platforms without agents."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import afarm
from afarm import monitor
from afarm._monitor.proc import Observed
from afarm.resources import Resources, Usage
from tests.elsewhere import as_on
from tests.polling import functions as do

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MIB = 1 << 20
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def polled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have calls polled, and see that nothing is left of them."""
    before = {each.pid for each in psutil.Process().children()}
    with monkeypatch.context() as patch:
        patch.setattr(monitor, "_polls", lambda: True)
        yield
    assert {each.pid for each in psutil.Process().children()} <= before


def inherited() -> int:
    """Return the mark of resident memory that a process started from here begins with, in MiB.

    Linux hands it down over exec, of whoever calls it; below that no call's own is known.
    """
    own = Observed(os.getpid())
    assert own.reset_mark()
    status = own.read()
    own.close()
    assert status is not None
    return status.high_water // MIB + 1


def measure(fn: Callable[..., Any], *args: Any, **limits: Any) -> Usage:
    _, usage = monitor.run_sync(fn, *args, limits=Resources(**limits))
    return usage


def failed(fn: Callable[..., Any], *args: Any, **limits: Any) -> afarm.InvocationError:
    with pytest.raises(afarm.InvocationError) as caught:
        measure(fn, *args, **limits)
    return caught.value


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def pids_in(path: Path) -> list[int]:
    return [int(each) for each in path.read_text().split()] if path.exists() else []


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# --- what was used


def test_a_peak_between_two_looks_is_seen_by_the_mark_of_the_process() -> None:
    size = inherited() + 150
    usage = measure(do.take, size)
    assert size * MIB <= usage.memory_low <= usage.memory <= (size + 60) * MIB
    assert usage.memory_resident >= usage.memory
    assert "marks of the process" in usage.monitor


def test_programs_that_run_at_once_are_added_up() -> None:
    mark = inherited() * MIB
    usage = measure(do.take_in_subprocesses, 2, 150, 0.5)
    assert 150 * MIB <= usage.memory_low <= usage.memory
    assert 300 * MIB <= usage.memory <= max(380 * MIB, mark)
    assert usage.processes == 3
    assert "descendants" in usage.monitor


def test_processor_time_is_that_of_the_call_and_of_what_it_has_waited_for() -> None:
    own = measure(do.burn, 0.5)
    assert 0.3 <= own.cpu_time <= 0.75  # what the interpreter took to start is not the call's
    assert own.cores <= 1.1
    assert 0.5 <= measure(do.burn_in_subprocess, 0.5).cpu_time <= 0.9


def test_the_scratch_directory_is_empty_first_measured_and_gone_afterwards() -> None:
    (folder, found, threads), usage = monitor.run_sync(
        do.scratch_and_threads, limits=Resources(cores=3)
    )
    assert found == []
    assert threads == "3"
    assert not os.path.exists(folder)
    assert usage.disk == 0
    assert 5 * MIB <= measure(do.write, 5, 0.0).disk <= 6 * MIB


def test_what_is_not_known_is_said() -> None:
    usage = measure(do.take, 1, 0.5)
    assert "psutil" in usage.monitor
    assert any("counters of bytes" in each for each in usage.faults)


# --- limits


@pytest.mark.parametrize(
    ("fn", "args", "resource", "limit"),
    [
        (do.take, (600, 60.0), "memory", 200 * MIB),
        (do.take_in_subprocesses, (3, 150, 60.0), "memory", 300 * MIB),
        (do.burn, (60.0,), "cpu_time", 0.5),
        (do.burn_in_subprocess, (60.0,), "cpu_time", 0.5),
        (do.write, (20, 60.0), "disk", 10 * MIB),
        (do.take_in_subprocesses, (3, 1, 60.0), "processes", 2),
    ],
)
def test_limits_are_kept(
    fn: Callable[..., Any], args: tuple[Any, ...], resource: str, limit: float
) -> None:
    error = failed(fn, *args, **{resource: limit})
    assert isinstance(error, afarm.ResourceExhausted)
    assert (error.resource, error.limit) == (resource, limit)
    assert error.usage is not None
    assert getattr(error.usage, resource) > limit


def test_a_breach_that_no_look_saw_is_told_at_the_end() -> None:
    size = inherited() + 150
    error = failed(do.take, size, 0.0, memory=(size - 20) * MIB)
    assert isinstance(error, afarm.ResourceExhausted)


def test_wall_time_is_kept() -> None:
    began = time.monotonic()
    assert isinstance(failed(time.sleep, 60, wall_time=0.3), afarm.InvocationTimeout)
    assert time.monotonic() - began < 10


def test_nobody_is_ended_for_pages_that_forked_children_share() -> None:
    usage = measure(do.take_and_fork, 200, 3, 0.5, memory=400 * MIB)
    assert usage.memory_low < 400 * MIB < usage.memory


def test_a_limit_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="wall_time must be above 0"):
        measure(do.take, 1, wall_time=-1)


# --- how calls end


def test_a_process_that_leaves_is_a_crash_with_its_output() -> None:
    error = failed(do.print_and_exit, 7)
    assert isinstance(error, afarm.InvocationCrashed)
    assert error.exit_code == 7
    assert "from Python" in error.output
    assert "from C" in error.output


def test_a_signal_is_told() -> None:
    error = failed(do.die, signal.SIGSEGV)
    assert isinstance(error, afarm.InvocationCrashed)
    assert error.signal == signal.SIGSEGV


def test_sys_exit_is_a_crash_with_its_code() -> None:
    error = failed(exit, 3)
    assert isinstance(error, afarm.InvocationCrashed)
    assert error.exit_code == 3


def test_a_result_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(afarm.SerializationError, match="result of"):
        measure(do.unpicklable)


@pytest.mark.parametrize("size", [0, 65_536, 70_000, 20 * MIB])
def test_arguments_and_results_of_any_size_travel(size: int) -> None:
    data = os.urandom(size)
    assert monitor.run_sync(bytes, data)[0] == data


def test_functions_of_no_module_travel() -> None:
    amount = 3
    assert monitor.run_sync(lambda n: n * amount, 14)[0] == 42


# --- what calls start


def test_cancelling_ends_the_whole_tree(tmp_path: Path) -> None:
    where = tmp_path / "pids"

    async def cancel() -> None:
        task = asyncio.create_task(monitor.run(do.start_sleepers, 3, str(where), False))
        while not where.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert len(pids_in(where)) == 3
    wait_for(lambda: all(map(gone, pids_in(where))))
    wait_for(lambda: not any(each.name.startswith("afarm ") for each in threading.enumerate()))


def test_orphans_are_ended_with_their_call(tmp_path: Path) -> None:
    where = tmp_path / "pids"
    usage = measure(do.start_sleepers, 2, str(where), True)
    assert usage.exit == 0
    assert len(pids_in(where)) == 2
    assert all(map(gone, pids_in(where)))


def test_who_left_the_session_is_ended_too(tmp_path: Path) -> None:
    where = tmp_path / "pids"
    error = failed(do.leave_session, str(where), wall_time=1.0)
    assert isinstance(error, afarm.InvocationTimeout)
    [pid] = pids_in(where)
    assert gone(pid)


def test_nothing_is_asked_of_an_interpreter_that_only_linux_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", as_on("darwin", tmp_path))
    monkeypatch.delattr(os, "waitid")
    result, usage = monitor.run_sync(do.platform_and_sum, 20, 22)
    assert result == ("darwin", 42)
    assert usage.exit == 0
    assert usage.memory_resident > MIB
