"""What a node has, and how busy it is. Linux only; what cannot be read is not limited."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..resources import Resources

_CGROUPS = "/sys/fs/cgroup"

# A limit of cgroup v1 that means none: the largest multiple of the page size.
_UNLIMITED = 1 << 60


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _own_groups() -> Iterator[tuple[str, str]]:
    """Yield the controllers (empty: version 2) and the folder of each cgroup we are in."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers:
            for name in controllers.split(","):
                yield name, f"{_CGROUPS}/{controllers}{path}"
        else:
            for root in (_CGROUPS, f"{_CGROUPS}/unified"):
                if os.path.exists(f"{root}/cgroup.controllers"):
                    yield "", root + path


def _and_above(folder: str) -> Iterator[str]:
    """Yield a cgroup's folder and all above it: each of them limits."""
    while folder.startswith(_CGROUPS):
        yield folder
        folder = folder.rpartition("/")[0]


def _number(path: str) -> float | None:
    text = _text(path).strip()
    try:
        value = float(text)
    except ValueError:  # "max", or not there
        return None
    return value if 0 <= value < _UNLIMITED else None


def memory_limit() -> int | None:
    """Return the least memory limit of the cgroups above this process, or ``None``."""
    found: list[float] = []
    for controller, folder in _own_groups():
        if controller not in ("", "memory"):
            continue
        for each in _and_above(folder):
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
                value = _number(f"{each}/{name}")
                if value is not None:
                    found.append(value)
    return int(min(found)) if found else None


def core_limit() -> float | None:
    """Return the least quota of processor time, in cores, or ``None``."""
    found: list[float] = []
    for controller, folder in _own_groups():
        if controller not in ("", "cpu"):
            continue
        for each in _and_above(folder):
            quota, _, period = _text(f"{each}/cpu.max").strip().partition(" ")
            if quota.isdigit() and period.isdigit():
                found.append(int(quota) / int(period))
            old = _number(f"{each}/cpu.cfs_quota_us")
            old_period = _number(f"{each}/cpu.cfs_period_us")
            if old and old_period:
                found.append(old / old_period)
    return min(found) if found else None


def cores() -> float:
    """Return how many cores may be used: affinity (cpuset too) and quota."""
    if hasattr(os, "sched_getaffinity"):
        count = float(len(os.sched_getaffinity(0)))
    else:  # macOS
        count = float(os.cpu_count() or 1)
    quota = core_limit()
    return count if quota is None else max(0.01, min(count, quota))


def _meminfo() -> dict[str, int]:
    found = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields:
            found[name] = int(fields[0]) * (1024 if len(fields) > 1 else 1)
    return found


def memory() -> int | None:
    """Return how much memory may be used: what the machine has, or the least limit above us."""
    total = _meminfo().get("MemTotal")
    limit = memory_limit()
    known = [value for value in (total, limit) if value is not None]
    return min(known) if known else None


def available() -> int:
    """Return the bytes of memory that a new process could have without swapping."""
    free = _meminfo().get("MemAvailable", 0)
    for controller, folder in _own_groups():
        if controller not in ("", "memory"):
            continue
        for each in _and_above(folder):
            limit = _number(f"{each}/memory.max")
            used = _number(f"{each}/memory.current")
            if limit is None:
                limit = _number(f"{each}/memory.limit_in_bytes")
                used = _number(f"{each}/memory.usage_in_bytes")
            if limit is not None and used is not None:
                free = min(free, int(max(0.0, limit - used + _cache(each))))
    return free


def _cache(folder: str) -> int:
    """Return the page cache a cgroup is charged with: the kernel takes it back when it must."""
    for line in _text(f"{folder}/memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def disk(folder: str) -> int | None:
    """Return the bytes that are free for us in a folder's file system."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def capacity(folder: str, stated: Resources) -> Resources:
    """Return what this node has, with what was stated of it taken as said."""
    return stated.over(Resources(cores=cores(), memory=memory(), disk=disk(folder), gpus=0))


@dataclass(slots=True)
class Load:
    """How busy the node is, from one look to the next.

    Attributes:
        idle: Ticks that its cores were idle, when last looked at.
        total: Ticks of its cores.
    """

    idle: int = 0
    total: int = 0

    def cores_in_use(self) -> float:
        """Return how many cores were in use, by anyone, since the last look."""
        first = _text("/proc/stat").partition("\n")[0].split()[1:9]
        if len(first) < 5:
            return 0.0
        ticks = [int(value) for value in first]
        idle, total = ticks[3] + ticks[4], sum(ticks)
        passed, rested = total - self.total, idle - self.idle
        self.idle, self.total = idle, total
        if passed <= 0:
            return 0.0
        return max(0.0, (1 - rested / passed) * (os.cpu_count() or 1))


def memory_pressure() -> float:
    """Return the share of the last 10 s that something waited for memory, or -1."""
    for line in _text("/proc/pressure/memory").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "some" and rest.startswith("avg10="):
            return float(rest[6:].partition(" ")[0]) / 100
    return -1.0
