"""The farm as a `concurrent.futures.Executor`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import afarm
from tests.farm import functions as do
from tests.farm.waiting import alive, pid_in, until


@pytest.fixture(scope="module")
def executor() -> Iterator[afarm.Executor]:
    with afarm.Executor([afarm.LocalNode(cores=4)], progress=False) as executor:
        yield executor


def test_it_maps_and_submits_like_any_executor(executor: afarm.Executor) -> None:
    assert executor.submit(do.add, 1, b=2).result(20) == 3
    assert list(executor.map(do.add, range(20))) == list(range(1, 21))
    futures = [executor.submit(do.add, n) for n in range(5)]
    done, _ = concurrent.futures.wait(futures, timeout=20)
    assert sorted(future.result() for future in done) == [1, 2, 3, 4, 5]


def test_errors_arrive_through_the_future(executor: afarm.Executor) -> None:
    with pytest.raises(ValueError, match="no"):
        executor.submit(do.fail, ValueError, "no").result(20)
    with pytest.raises(afarm.SerializationError):
        executor.submit(do.echo, do.make_lock()).result(20)


async def test_run_in_executor(executor: afarm.Executor) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, do.add, 5) == 6


async def test_cancelling_ends_a_call_that_runs(executor: afarm.Executor, tmp_path: Path) -> None:
    future = executor.submit(do.touch_and_wait, str(tmp_path / "pid"))
    pid = await pid_in(tmp_path / "pid")
    assert future.running()
    assert future.cancel()
    await until(lambda: not alive(pid), 5)
    concurrent.futures.wait([future], timeout=5)
    assert future.cancelled()


def test_after_shutdown_nothing_is_taken() -> None:
    executor = afarm.Executor([afarm.LocalNode(cores=1)], progress=False)
    future = executor.submit(do.sleep, 0.2, 1)
    executor.shutdown()
    assert future.result(0) == 1
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(do.add, 1)


def test_a_farm_that_cannot_open_says_so_at_once() -> None:
    with pytest.raises(afarm.NoNodesError):
        afarm.Executor([afarm.CommandNode(["/bin/false"])], progress=False)


def run_script(body: str) -> subprocess.Popen[str]:
    code = f"import afarm, time\nfrom tests.farm import functions as do\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_end_of_the_program_waits_for_its_calls(tmp_path: Path) -> None:
    process = run_script(
        "executor = afarm.Executor(progress=False)\n"
        "call = executor.submit(do.sleep, 0.5, 7)\n"
        "call.add_done_callback(lambda call: print('result', call.result()))"
    )
    output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("result 7\n", "", 0)


def test_ctrl_c_while_the_nodes_are_opened_ends_the_program() -> None:
    process = run_script(
        "node = afarm.CommandNode(['/bin/sh', '-c', 'echo started >&2; exec sleep 600'])\n"
        "print('opening', flush=True)\n"
        "afarm.Executor([node], progress=False)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "opening\n"
    end = time.monotonic() + 10
    while not (hanging := psutil.Process(process.pid).children()) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=20)
    finally:
        for program in hanging:  # it reads nothing, so that its end of input tells it nothing
            with contextlib.suppress(psutil.NoSuchProcess):
                program.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_an_executor_prints_as_what_it_runs_on(executor: afarm.Executor) -> None:
    assert repr(executor) == "<Executor on <Farm of local, open>>"


def test_a_view_of_an_executor_has_settings_of_its_own(tmp_path: Path) -> None:
    record = tmp_path / "farm.db"
    with afarm.Executor([afarm.LocalNode(cores=2)], record=record, progress=False) as executor:
        assert executor.slots == 2
        view = executor.options(category="mine").options(env={"VIEW": "1"})
        assert view.submit(os.getenv, "VIEW").result() == "1"
        assert executor.submit(os.getenv, "VIEW").result() is None
        assert list(view.map(do.add, range(3))) == [1, 2, 3]
        view.shutdown()
        assert view.submit(do.add, 1).result() == 2
        with pytest.raises(ValueError, match="memory"):
            executor.options(memory=0)


def test_results_asked_for_through_an_executor_are_kept_by_their_arguments(
    tmp_path: Path,
) -> None:
    with afarm.Executor(record=tmp_path / "farm.db", progress=False) as executor:
        view = executor.options(memo=True)
        assert [view.submit(do.add, n).result() for n in (1, 2, 1, 2)] == [2, 3, 2, 3]
        assert view.submit(do.pid, 1).result() == view.submit(do.pid, 1).result()
        assert view.submit(do.add, 5, b=1).result() == 6
        assert view.submit(do.add, 5, b=2).result() == 7
