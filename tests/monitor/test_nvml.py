"""What is read from NVML, here a small library in C that has its names and structures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from afarm._monitor.nvml import DeviceMemory, open_nvml

COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")

# Two GPUs. On the first compute 20 processes, number n (from 1) with n MiB; on the second
# number 5 with 100 MiB, and number 6, of whose memory the driver knows nothing.
SOURCE = """
#include <string.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;
typedef struct { unsigned pid; unsigned long long used; } old_process;
typedef struct { unsigned long long total, free, used; } memory;

static int users, asked;

int nvmlInit_v2(void) { users++; return INIT; }
int nvmlShutdown(void) { users--; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{ *device = (void *)(index + 0x100000001ul); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *found)
{
    if (device != (void *)0x100000001ul) return 3;
    memset(found, 0, sizeof *found);
    found->total = 80ull << 30; found->used = 3ull << 30; found->free = 77ull << 30;
    return 0;
}
int open_users(void) { return users; }

int QUESTION(void *device, unsigned *count, PROCESS *found)
{
    unsigned there = device == (void *)0x100000001ul ? 20 : 2, i;
    if (*count < there) {
        *count = there + asked++;  /* more begin each time */
        return 7;
    }
    *count = there;
    for (i = 0; i < there; i++) {
        memset(&found[i], 0x55, sizeof found[i]);
        found[i].pid = there == 20 ? i + 1 : i + 5;
        found[i].used = there == 20 ? (i + 1ull) << 20 : i ? ~0ull : 100ull << 20;
    }
    return 0;
}
"""

MIB = 1 << 20


def compiled(
    folder: Path,
    question: str = "nvmlDeviceGetComputeRunningProcesses_v3",
    process: str = "process",
    init: int = 0,
) -> str:
    assert COMPILER is not None
    source, library = folder / "nvml.c", folder / f"lib{question}{init}.so"
    source.write_text(SOURCE)
    macros = [f"-DQUESTION={question}", f"-DPROCESS={process}", f"-DINIT={init}"]
    subprocess.run([COMPILER, "-shared", "-fPIC", *macros, "-o", library, source], check=True)
    return str(library)


@pytest.mark.parametrize(
    ("question", "process"),
    [
        ("nvmlDeviceGetComputeRunningProcesses_v3", "process"),
        ("nvmlDeviceGetComputeRunningProcesses_v2", "process"),
        ("nvmlDeviceGetComputeRunningProcesses", "old_process"),
    ],
)
def test_memory_is_told_of_each_process_on_each_gpu(
    tmp_path: Path, question: str, process: str
) -> None:
    nvml = open_nvml(compiled(tmp_path, question, process))
    assert nvml is not None
    assert nvml.count == 2
    first, second = nvml.memory_by_process()
    assert first == {number: number * MIB for number in range(1, 21)}
    assert second == {5: 100 * MIB}  # of number 6 it is not known
    nvml.close()


def test_memory_of_a_gpu_is_read_where_it_is_told(tmp_path: Path) -> None:
    nvml = open_nvml(compiled(tmp_path))
    assert nvml is not None
    assert nvml.memory(0) == DeviceMemory(80 << 30, 3 << 30)
    assert nvml.memory(1) is None
    assert nvml._library["open_users"]() == 1
    nvml.close()
    assert nvml._library["open_users"]() == 0


def test_a_library_that_does_not_work_is_none(tmp_path: Path) -> None:
    assert open_nvml(compiled(tmp_path, init=9)) is None
    assert open_nvml(compiled(tmp_path, "somethingElse")) is None
    assert open_nvml(str(tmp_path / "missing.so")) is None
    (tmp_path / "text.so").write_text("no library")
    assert open_nvml(str(tmp_path / "text.so")) is None
