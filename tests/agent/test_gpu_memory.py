"""What calls use of the memory of GPUs, as a library that stands for NVML tells it.

The library is a small one in C with NVML's names. Who uses how much it reads from a file, a
line ``GPU PID BYTES`` for each, and each time it was asked it adds a byte to another.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import afarm
from afarm._monitor.gpu_memory import unpack
from afarm._wire import messages as m
from afarm.resources import Resources
from tests.agent.driver import Driver, Result
from tests.farm import functions as do

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")

MIB = 1 << 20

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{ *device = (void *)(index + 1ul); return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *found)
{
    unsigned gpu, pid, n = 0;
    unsigned long long used;
    FILE *asked, *uses;
    if (getenv("NVML_HANGS")) pause();
    uses = fopen(getenv("NVML_USES"), "r");
    while (uses && fscanf(uses, "%u %u %llu", &gpu, &pid, &used) == 3)
        if (gpu + 1ul == (unsigned long)device) { found[n].pid = pid; found[n++].used = used; }
    if (uses) fclose(uses);
    *count = n;
    asked = fopen(getenv("NVML_ASKED"), "a");
    fputc('.', asked);
    fclose(asked);
    return 0;
}
"""


class Nvml:
    """The library, and the files through which it is told and tells.

    Attributes:
        variables: What lets an agent find it.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "nvml.c").write_text(SOURCE)
        library = folder / "libnvidia-ml.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
        self.asked = folder / "asked"
        self.asked.touch()
        self.uses = folder / "uses"
        self.variables = {
            "LD_LIBRARY_PATH": str(folder),
            "NVML_USES": str(self.uses),
            "NVML_ASKED": str(self.asked),
        }


@pytest.fixture
def nvml(tmp_path: Path) -> Nvml:
    (tmp_path / "nvml").mkdir()
    return Nvml(tmp_path / "nvml")


@pytest.fixture
def node(tmp_path: Path, nvml: Nvml) -> Iterator[Driver]:
    with closing(Driver(tmp_path / "node", environ=nvml.variables)) as driver:
        driver.in_place()
        yield driver


def make_use() -> Callable[..., int]:
    """Return a function that travels by value: the node cannot import this module."""

    def use(amounts: list[list[int]], child: bool = False) -> int:
        """Use so much of each GPU, one after the other, each until it must have been seen."""
        import subprocess

        asked, uses = os.environ["NVML_ASKED"], os.environ["NVML_USES"]
        sleeper = subprocess.Popen(["sleep", "60"]) if child else None
        pid = sleeper.pid if sleeper is not None else os.getpid()
        for each in amounts:
            lines = [f"{gpu} {pid} {size}\n" for gpu, size in enumerate(each) if size]
            with open(f"{uses}.{pid}", "w") as file:
                file.write("".join([*lines, "0 1 4096\n"]))
            os.rename(f"{uses}.{pid}", uses)
            # Two GPUs: what was written by now is seen by the second whole look from now.
            begin = os.path.getsize(asked)
            while os.path.getsize(asked) < begin + 6:
                time.sleep(0.01)
        if sleeper is not None:
            sleeper.kill()
            sleeper.wait()
        return os.getpid()

    return use


use = make_use()


def peaks(driver: Driver, result: Result) -> tuple[int, ...]:
    """Return what was told of a call before its end."""
    at = driver.received.index(result.ended)
    told = [
        unpack(each.gpu_memory)
        for each in driver.received[:at]
        if isinstance(each, m.Details) and each.invocation == result.ended.invocation
    ]
    return next(filter(None, told), ())


@pytest.mark.slow
@pytest.mark.parametrize("child", [False, True])
def test_the_peak_of_each_gpu_comes_ahead_of_the_end(node: Driver, child: bool) -> None:
    amounts = [[300 * MIB, 0], [100 * MIB, 200 * MIB], [0, 0]]
    result = node.call(use, amounts, child, limits=Resources(gpus=2))
    assert result.value
    assert peaks(node, result) == (300 * MIB, 200 * MIB)


@pytest.mark.slow
def test_calls_that_follow_each_other_in_one_process_have_peaks_of_their_own(node: Driver) -> None:
    gpu = Resources(gpus=1)
    first = node.run(use, [[300 * MIB]], group=5, limits=gpu, reuse=True)
    second = node.run(use, [[100 * MIB]], group=5, limits=gpu, reuse=True, queued=True)
    results = node.result(first), node.result(second)
    assert results[0].value == results[1].value  # the process
    assert [peaks(node, each) for each in results] == [(300 * MIB,), (100 * MIB,)]


def test_nobody_asks_for_calls_without_gpus(node: Driver, nvml: Nvml) -> None:
    result = node.call(lambda: 7)
    assert result.value == 7
    assert peaks(node, result) == ()
    assert nvml.asked.stat().st_size == 0
    assert not gauges_of(node)


def gauges_of(driver: Driver) -> list[psutil.Process]:
    children = psutil.Process(driver.process.pid).children()
    return [each for each in children if each.cmdline()[-1:] == ["gauge"]]


def test_a_library_that_hangs_holds_nobody_up(tmp_path: Path, nvml: Nvml) -> None:
    variables = {**nvml.variables, "NVML_HANGS": "1"}
    with closing(Driver(tmp_path / "node", environ=variables)) as driver:
        driver.in_place()
        for group in (1, 2, 3):
            result = driver.call(lambda: 7, limits=Resources(gpus=1), group=group)
            assert result.value == 7
            assert peaks(driver, result) == ()
        [gauge] = gauges_of(driver)
    gauge.wait(5)  # it goes with its agent


def test_calls_go_on_when_nobody_tells_any_more(node: Driver) -> None:
    gpu = Resources(gpus=1)
    assert node.call(lambda: 7, limits=gpu).value == 7
    [gauge] = gauges_of(node)
    gauge.send_signal(signal.SIGKILL)
    gauge.wait(5)
    for group in (2, 3):
        result = node.call(lambda: 8, limits=gpu, group=group)
        assert result.value == 8
        assert peaks(node, result) == ()


@pytest.mark.slow
async def test_usage_has_the_peak_of_each_gpu(
    tmp_path: Path, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in nvml.variables.items():
        monkeypatch.setenv(name, value)
    node = afarm.LocalNode(cores=1, scratch=str(tmp_path))
    async with afarm.Farm([node], progress=False) as farm:
        call = farm.options(gpus=2).submit(use, [[5 * MIB, 9 * MIB]])
        await call
        assert call.usage is not None
        assert call.usage.gpu_memory == (5 * MIB, 9 * MIB)
        without = farm.submit(do.add, 1)
        await without
        assert without.usage is not None
        assert without.usage.gpu_memory == ()
