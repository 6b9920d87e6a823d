"""The function monitor alone, in programs that have no farm; as on Linux, and as elsewhere."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import afarm
from tests.farm import functions as do

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MIB = 1 << 20


@pytest.fixture(params=["kernel", "psutil"], autouse=True)
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who looks at calls: an agent, or psutil, as where there is none."""
    if request.param == "psutil":
        monkeypatch.setattr(afarm.monitor, "_polls", lambda: True)
    return str(request.param)


def take(mebibytes: int, seconds: float = 0.0) -> int:
    data = bytearray(mebibytes * MIB)
    data[::4096] = b"x" * len(data[::4096])
    time.sleep(seconds)
    return len(data)


def whoami() -> int:
    return os.getpid()


def measured_inside() -> tuple[int, int]:
    inner, usage = afarm.monitor.run_sync(take, 60)
    return inner, usage.memory


@afarm.monitored(memory="200 MiB", wall_time=30)
def limited(mebibytes: int) -> int:
    """Take some memory."""
    return take(mebibytes)


@afarm.monitored()
async def answered(value: int) -> int:
    await asyncio.sleep(0.01)
    return value


def test_a_call_is_measured_and_runs_in_a_process_of_its_own(tier: str) -> None:
    _, usage = afarm.monitor.run_sync(do.take_memory, 100 * MIB, 0.0)
    assert usage.memory_low <= 110 * MIB
    assert usage.memory >= 100 * MIB
    if tier == "kernel":  # else it may be no more than the mark inherited from this process
        assert usage.memory <= 150 * MIB
    first, _ = afarm.monitor.run_sync(whoami)
    second, _ = afarm.monitor.run_sync(whoami)
    assert len({first, second, os.getpid()}) == 3


async def test_it_can_be_awaited_and_cancelled() -> None:
    result, usage = await afarm.monitor.run(do.add, 1)
    assert result == 2
    assert usage.wall_time >= 0
    task = asyncio.create_task(afarm.monitor.run(time.sleep, 600))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 70_000, 5_000_000])
def test_results_of_any_size_come_back(size: int) -> None:
    result, _ = afarm.monitor.run_sync(do.blob, size)
    assert result == b"x" * size


def test_limits_are_kept_and_told() -> None:
    with pytest.raises(afarm.ResourceExhausted) as caught:
        afarm.monitor.run_sync(take, 400, 5, limits=afarm.Resources(memory=100 * MIB))
    assert caught.value.resource == "memory"
    assert caught.value.usage is not None
    assert caught.value.usage.memory > 100 * MIB
    with pytest.raises(afarm.InvocationTimeout):
        afarm.monitor.run_sync(time.sleep, 60, limits=afarm.Resources(wall_time=0.2))
    with pytest.raises(afarm.InvocationCrashed):
        afarm.monitor.run_sync(os._exit, 3)


def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        afarm.monitor.run_sync(divmod, 1, 0)
    assert "Traceback" in "\n".join(caught.value.__notes__)


def test_a_decorated_function_returns_its_result_alone_and_keeps_the_usage() -> None:
    assert limited(50) == 50 * MIB
    assert limited.last_usage is not None
    assert limited.last_usage.memory >= 50 * MIB
    assert (limited.__name__, limited.__doc__) == ("limited", "Take some memory.")
    with pytest.raises(afarm.ResourceExhausted):
        limited(500)
    assert limited.last_usage.memory > 200 * MIB
    assert pickle.loads(pickle.dumps(limited)) is limited


async def test_coroutine_functions_stay_coroutine_functions() -> None:
    assert await answered(7) == 7
    assert answered.last_usage is not None


def test_methods_can_be_decorated() -> None:
    class Thing:
        def __init__(self, value: int) -> None:
            self.value = value

        @afarm.monitored()
        def twice(self) -> int:
            return 2 * self.value

    assert Thing(21).twice() == 42


def test_threads_may_call_at_once() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: afarm.monitor.run_sync(do.add, n)[0], range(12)))
    assert found == list(range(1, 13))
    assert threading.active_count() < 20


def test_a_monitored_call_may_make_another_one() -> None:
    (size, memory), outer = afarm.monitor.run_sync(measured_inside)
    assert size == 60 * MIB
    assert memory >= 60 * MIB
    assert outer.processes >= 1


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(afarm.SerializationError, match="argument 1"):
        afarm.monitor.run_sync(len, threading.Lock())
    with pytest.raises(TypeError):
        afarm.monitor.run_sync(7)  # type: ignore[arg-type]


def test_the_helper_ends_with_its_host(tmp_path: Path, tier: str) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "import afarm, os, time\n"
        f"afarm.monitor._polls = lambda: {tier == 'psutil'}\n"
        "afarm.monitor.run_sync(len, '')\n"
        "print('ready', flush=True)\n"
        "afarm.monitor.run_sync(time.sleep, 600)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        try:
            until = time.monotonic() + 10
            while not (below := psutil.Process(host.pid).children(recursive=True)):
                assert time.monotonic() < until
        finally:
            os.kill(host.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
