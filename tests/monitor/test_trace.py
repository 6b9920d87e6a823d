"""Calls whose processes are traced: measured exactly, and undisturbed."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import afarm
from afarm._agent.spawning import suffers
from afarm.tracing import MOST_CATEGORIES, Tracings
from benchmarks import truths
from benchmarks.truths import MIB
from tests.monitor import functions as do

TRACED = "read at its end"


@pytest.fixture(scope="module")
def executor() -> Iterator[afarm.Executor]:
    with afarm.Executor([afarm.LocalNode(cores=2)], progress=False) as executor:
        yield executor


def usage_of(future: afarm.executor.CallFuture[object]) -> afarm.Usage:
    future.result(60)
    assert future.usage is not None
    return future.usage


def can_trace(executor: afarm.Executor) -> bool:
    return (
        TRACED in usage_of(executor.options(trace=True).submit(subprocess.call, ["true"])).monitor
    )


@pytest.fixture(autouse=True)
def _needs_tracing(executor: afarm.Executor) -> None:
    if not can_trace(executor):
        pytest.skip("this machine does not allow ptrace")


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
def test_processes_too_short_for_any_look_have_their_peak(
    executor: afarm.Executor, isolation: str
) -> None:
    view = executor.options(trace=True, isolation=isolation)
    for _ in range(2):
        usage = usage_of(view.submit(truths.in_subprocesses_in_sequence, 60 * MIB, 5))

        assert TRACED in usage.monitor
        assert usage.faults == ()
        # The kernel counts pages for each processor apart, and adds them up now and then.
        assert 59 * MIB <= usage.memory_low <= usage.memory <= 80 * MIB


def test_the_first_calls_of_a_category_are_traced_and_later_ones_are_not(
    executor: afarm.Executor,
) -> None:
    view = executor.options(category="starts processes")
    found = [usage_of(view.submit(subprocess.call, ["true"])).monitor for _ in range(8)]

    assert [TRACED in monitor for monitor in found] == [True] * 5 + [False] * 3


def test_nothing_is_traced_where_that_is_not_wanted(executor: afarm.Executor) -> None:
    usage = usage_of(executor.options(trace=False).submit(subprocess.call, ["true"]))

    assert TRACED not in usage.monitor
    assert usage.processes == 2


def test_traced_processes_do_what_they_always_do(executor: afarm.Executor) -> None:
    future = executor.options(trace=True).submit(do.all_kinds)

    assert future.result(60) == [7, -6, [0] * 4, b"A B\n3\n", "not there", 5]


async def test_a_traced_tree_ends_as_any_other(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    async with afarm.Farm([afarm.LocalNode(cores=1)], progress=False) as farm:
        invocation = farm.options(trace=True).submit(do.linger, str(told))
        while not told.exists() or not told.read_text():
            assert not invocation.done(), invocation.exception()
            await asyncio.sleep(0.01)
        invocation.cancel()
        # The allocation of the only core is free when all of it is gone.
        await farm.submit(os.getpid)

        assert not any(Path(f"/proc/{pid}").exists() for pid in told.read_text().split())


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
def test_processes_that_start_threads_end_with_a_traced_call(
    executor: afarm.Executor, isolation: str
) -> None:
    view = executor.options(trace=True, isolation=isolation)
    for _ in range(3):
        view.submit(do.leave_threads).result(60)


def test_a_traced_child_is_held_to_the_limit(executor: afarm.Executor) -> None:
    view = executor.options(trace=True, memory="100 MiB")

    with pytest.raises(afarm.ResourceExhausted) as caught:
        view.submit(do.grow_in_child).result(60)
    assert caught.value.usage is not None
    assert caught.value.usage.curve


@pytest.mark.parametrize("command", ["strace", "/usr/bin/gdb", ["strace", "-f", "ls"]])
def test_tracers_are_left_alone(command: object) -> None:
    assert suffers(("sh", command))


def test_a_program_that_needs_its_rights_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "needs-rights"
    program.touch()
    program.chmod(0o4755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert suffers((str(program), [str(program), "x"]))
    assert suffers(("/bin/sh", ["sh", "-c", f"exec {program} now"]))
    assert not suffers(("/bin/sh", ["sh", "-c", "exec true"]))


def test_categories_are_remembered_up_to_a_number() -> None:
    tracings = Tracings()
    first = tracings.of("first")
    first.sent = 7
    for number in range(MOST_CATEGORIES - 1):
        tracings.of(str(number))
        assert tracings.of("first") is first
    tracings.of("one more")

    assert tracings.of("0").sent == 0
    assert tracings.of("first") is first
