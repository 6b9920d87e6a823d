"""What one call uses, as far as a process can tell without ``/proc``: by ``getrusage`` alone."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time

from ..resources import Source, Usage
from .meter import Finding, Seen, has_children
from .proc import Status

# What ``ru_maxrss`` counts in: getrusage(2) of macOS says bytes, all others KiB.
_UNIT = 1 if sys.platform == "darwin" else 1024


class PlainMeter:
    """Stands for a `meter.Meter` in a process that runs one call.

    The mark of resident memory cannot be reset, and on Linux is inherited over fork and exec:
    if it has risen during the call it is the call's peak, else no more than a bound. It is told
    as `Usage.memory`, and as `Usage.memory_low` and `memory_resident` if it has risen. How much
    of it is the call's own, who looks from outside can say.
    """

    resident = 0
    anonymous = 0

    def __init__(self) -> None:
        self.begin(again=False)

    def begin(self, *, again: bool) -> None:
        """Note that the call begins."""
        self._start = time.time()
        self._own = resource.getrusage(resource.RUSAGE_SELF)
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)

    def finish(
        self, wall_time: float, exit: int | None = None, seen: Seen | None = None
    ) -> Finding:
        """Return what was used since `begin`; see `meter.Meter.finish`."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        before = self._children
        had_children = children[:2] != before[:2] or _has_children()
        risen = own.ru_maxrss > self._own.ru_maxrss
        mark = own.ru_maxrss * _UNIT
        peak = mark if risen else 0
        threads = threading.active_count()
        user = own.ru_utime - self._own.ru_utime + children.ru_utime - before.ru_utime
        system = own.ru_stime - self._own.ru_stime + children.ru_stime - before.ru_stime
        elapsed = max(wall_time, time.time() - self._start)
        usage = Usage(
            wall_time=wall_time,
            cpu_user=user,
            cpu_system=system,
            memory=mark,
            memory_low=peak,
            memory_resident=peak,
            processes=2 if had_children else 1,
            threads=threads,
            cores_peak=(user + system) / elapsed if elapsed > 0 else 0.0,
            sources=int(Source.PROCESS if risen else Source.NO_MARK) | Source.NO_COUNTERS,
            start=self._start,
            exit=exit,
        )
        return Finding(usage, True, had_children, b"", Status(mark, 0, 0, 0, threads))

    @property
    def processor_ns(self) -> tuple[int, int]:
        """Nanoseconds of CPU, user and system, that were used before the call began."""
        own, children = self._own, self._children
        return (
            int(1e9 * (own.ru_utime + children.ru_utime)),
            int(1e9 * (own.ru_stime + children.ru_stime)),
        )

    def grown(self, status: Status | None = None) -> int:
        """Return what only a worker that serves on would have to know."""
        return 0


def _has_children() -> bool:
    """Return whether this process has a child; before Python 3.13 macOS cannot be asked."""
    return hasattr(os, "waitid") and has_children()
