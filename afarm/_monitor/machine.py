"""What a node has, and how busy it is: what is there, less what keeps us from it.

Cores are bounded by affinity, cpusets, quotas of every cgroup above us and by the batch
system; memory by what the machine has, by every cgroup above us and by the batch system.

The limits of a process (RLIMIT_AS, RLIMIT_DATA; RLIMIT_RSS means nothing to Linux) hold
for one process, not for all that run here: taken for the node's memory, ``ulimit -v`` of
4 GB would leave a node of 256 GB with room for a single call. So they are left alone,
except within a job of a batch system that puts the job's own limit there (`batch`).

Linux only; what cannot be read is not limited.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..resources import Resources
from .batch import Job
from .bound import Bound, least
from .cgroups import Cgroups, Group, read_text

_MACHINE = "the machine"

_NO_GPUS = Bound(0, "")

_PROCESS_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_RSS")


class Capacity(NamedTuple):
    """What a node has, and why it is not more.

    Attributes:
        resources: What it has.
        sources: For ``cores``, ``memory`` and ``gpus``, what sets the amount.
    """

    resources: Resources
    sources: dict[str, str]


def _own_affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))  # macOS


def own_process_limits() -> dict[str, int]:
    """Return the limits of this process that concern memory, in bytes, where there are some."""
    found = {}
    for name in _PROCESS_LIMITS:
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found[name] = soft
    return found


class Machine:
    """The machine as this process may use it.

    Args:
        root: The folder that stands for ``/``.
        environ: The environment variables.
        affinity: The processors that this process may run on.
        process_limits: What `own_process_limits` returns.
        host: The name of the machine.

    Attributes:
        cgroups: The groups that this process is in.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        environ: Mapping[str, str] | None = None,
        affinity: frozenset[int] | None = None,
        process_limits: Mapping[str, int] | None = None,
        host: str | None = None,
    ) -> None:
        self._root = root.rstrip("/")
        self._affinity = _own_affinity() if affinity is None else affinity
        self._limits = own_process_limits() if process_limits is None else process_limits
        self.cgroups = Cgroups(root)
        self._job = Job(
            os.environ if environ is None else environ,
            os.uname().nodename if host is None else host,
            root,
        )
        self._cpus, self._confined_by = self._usable()
        self._ticks: tuple[int, int] | None = None
        self._used: tuple[float, float] | None = None

    # --- cores

    def _usable(self) -> tuple[frozenset[int], str]:
        """Return the processors that this process may run on, and what confines it to them."""
        found, source = self._affinity, "affinity"
        for cpus, confined_by in self.cgroups.cpus():
            # What has no processor in common with the affinity is not about this process.
            if found & cpus and not found <= cpus:
                found, source = found & cpus, confined_by
        there = len(self._processors())
        return found, source if not there or len(found) < there else _MACHINE

    def cores(self) -> Bound:
        """Return how many cores may be used, and what sets that."""
        bounds = [Bound(float(len(self._cpus)), self._confined_by)]
        bounds += [bound for bound, _ in self.cgroups.quotas()]
        bounds += self._job.cores()
        found = least(bounds)
        assert found is not None
        return Bound(max(0.01, float(found.amount)), found.source)

    # --- memory

    def _meminfo(self) -> dict[str, int]:
        found = {}
        for line in read_text(f"{self._root}/proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            fields = rest.split()
            if fields and fields[0].isascii() and fields[0].isdigit():
                found[name] = int(fields[0]) * (1024 if len(fields) > 1 else 1)
        return found

    def _memory_bounds(self) -> Iterator[Bound]:
        yield from self.cgroups.memory()
        yield from self._job.memory()
        if self._job.limits_processes:
            for name, amount in self._limits.items():
                yield Bound(amount, name)

    def memory(self) -> Bound | None:
        """Return how many bytes of memory may be used, and what sets that."""
        bounds = []
        total = self._meminfo().get("MemTotal")
        if total is not None:
            bounds.append(Bound(total, _MACHINE))
        return least((*bounds, *self._memory_bounds()))

    def available(self) -> int:
        """Return the bytes of memory that a new process could have without swapping."""
        bounds = [float(self._meminfo().get("MemAvailable", 0))]
        bounds += self.cgroups.memory_left()
        bounds += [bound.amount for bound in self._memory_bounds()]
        return int(min(bounds))

    def memory_pressure(self) -> float:
        """Return the share of the last 10 s that something waited for memory, or -1.

        Where a cgroup limits us, what others on the machine wait for is not our concern.
        """
        path = self.cgroups.memory_pressure() or f"{self._root}/proc/pressure/memory"
        for line in read_text(path).splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "some" and rest.startswith("avg10="):
                try:
                    return float(rest[6:].partition(" ")[0]) / 100
                except ValueError:
                    return -1.0
        return -1.0

    # --- all of it

    def capacity(self, folder: str, stated: Resources, gpus: Bound = _NO_GPUS) -> Capacity:
        """Return what this node has, with what was stated of it taken as said.

        Args:
            folder: Where scratch directories are.
            stated: What the user said of the node.
            gpus: How many GPUs it has, and where they were found.
        """
        cores, memory = self.cores(), self.memory()
        found = Resources(
            cores=cores.amount,
            memory=None if memory is None else int(memory.amount),
            disk=disk(folder),
            gpus=int(gpus.amount),
        )
        sources = {} if memory is None else {"memory": memory.source}
        sources["cores"] = cores.source
        if gpus.source:
            sources["gpus"] = gpus.source
        for name in ("cores", "memory", "gpus"):
            if getattr(stated, name) is not None:
                sources[name] = "stated"
        return Capacity(stated.over(found), sources)

    # --- load

    def _processors(self) -> dict[int, list[int]]:
        """Return the ticks of each processor of the machine, by kind (proc(5))."""
        found = {}
        for line in read_text(f"{self._root}/proc/stat").splitlines():
            name, *fields = line.split()[:9] or [""]
            number = name.removeprefix("cpu")
            numbers = len(fields) >= 5 and all(field.isdecimal() for field in fields)
            if name != number and number.isdecimal() and numbers:
                found[int(number)] = [int(field) for field in fields]
        return found

    def cores_in_use(self) -> float:
        """Return how many cores were in use, by anyone, since the last look.

        Of the cores that `cores` counts: of the processors that we are confined to, or of
        the quota that bounds us. The first look returns 0.
        """
        bounds = [*self.cgroups.quotas()]
        bound, group = min(bounds, key=lambda each: each[0].amount, default=(None, None))
        if bound is not None and group is not None and bound.amount < len(self._cpus):
            used = self._quota_in_use(group)
            if used is not None:
                return used
        return self._processors_in_use()

    def _quota_in_use(self, group: Group) -> float | None:
        now, used = time.monotonic(), self.cgroups.processor_time(group)
        if used is None:
            return None
        before, self._used = self._used, (now, used)
        if before is None or now <= before[0]:
            return 0.0
        return max(0.0, (used - before[1]) / (now - before[0]))

    def _processors_in_use(self) -> float:
        ours = [ticks for number, ticks in self._processors().items() if number in self._cpus]
        total = sum(map(sum, ours))
        idle = sum(ticks[3] + ticks[4] for ticks in ours)
        before, self._ticks = self._ticks, (idle, total)
        if before is None or total <= before[1]:
            return 0.0
        return max(0.0, (1 - (idle - before[0]) / (total - before[1])) * len(ours))


def disk(folder: str) -> int | None:
    """Return the bytes that are free for us in a folder's file system."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
