"""Functions that tests of control groups run in workers."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from afarm._monitor.cgroups import Cgroups, read_fields, read_number

MIB = 1 << 20

_GROUPS = Cgroups()
_V1 = _GROUPS.of("memory")[:1] and _GROUPS.of("memory")[0].version == 1
KILLS = "memory.oom_control" if _V1 else "memory.events"
_LIMIT = "memory.limit_in_bytes" if _V1 else "memory.max"
_REFAULTS = "total_workingset_refault_file" if _V1 else "workingset_refault_file"


def nothing() -> None:
    pass


def own_group(controller: str) -> str:
    """Return the folder of the group that this process is in."""
    return Cgroups().of(controller)[0].folder


def own_limit() -> float | None:
    """Return the memory limit of this process's group once its supervisor has seen the call."""
    time.sleep(0.1)
    return read_number(f"{own_group('memory')}/{_LIMIT}")


def scores() -> tuple[int, int]:
    """Return the out-of-memory scores of this process and of its parent."""
    own, parents = (Path(f"/proc/{pid}/oom_score_adj") for pid in (os.getpid(), os.getppid()))
    return int(own.read_text()), int(parents.read_text())


def wait_for(go: str) -> None:
    """Return when a file is there."""
    while not os.path.exists(go):
        time.sleep(0.005)


def take_when_told(go: str, size: int) -> None:
    """Take memory, all at once, when a file is there."""
    time.sleep(0.1)  # by then the supervisor has seen the call
    print("ready", flush=True)
    wait_for(go)
    held = mmap.mmap(-1, size)
    for at in range(0, size, 4096):
        held[at] = 1


def child_takes_when_told(go: str, size: int) -> int:
    """Have a child do that; return how it ended."""
    time.sleep(0.1)
    print("ready", flush=True)
    wait_for(go)
    return subprocess.call([sys.executable, "-c", f"held = b'x' * {size}"])


def read_again_and_again(path: str) -> list[int]:
    """Read a file in rounds; return how many pages of it were read anew in each."""
    stat = f"{own_group('memory')}/memory.stat"
    found = []
    for _ in range(12):
        before = read_fields(stat)[_REFAULTS]
        with open(path, "rb", buffering=0) as file:
            while file.read(MIB):
                pass
        found.append(read_fields(stat)[_REFAULTS] - before)
    return found
