"""What psutil tells of the processes of one call, and ending them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import psutil

# For killed processes to be gone, before they are looked for again (s).
_PATIENCE = 0.1

# Over how long `Usage.cores_peak` is (s).
_PEAK_OVER = 1.0


class Look(NamedTuple):
    """What was there at one look; bytes, and seconds since the call began.

    Attributes:
        rise: Resident bytes of all processes, on top of what the first had before the call.
        resident: The same, all of it.
        largest: The most that one process has on top of that: surely the call's.
    """

    rise: int
    resident: int
    largest: int
    processes: int
    threads: int
    user: float
    system: float


class CoresPeak:
    """The most cores in use over a second, out of looks that come more often. Pure."""

    def __init__(self) -> None:
        self._past = deque([(0.0, 0.0)])
        self.most = 0.0

    def add(self, elapsed: float, cpu_time: float) -> None:
        """Take in how much processor time was used by then."""
        past = self._past
        while len(past) > 1 and past[1][0] <= elapsed - _PEAK_OVER:
            past.popleft()
        then, used = past[0]
        if elapsed - then >= _PEAK_OVER:
            self.most = max(self.most, (cpu_time - used) / (elapsed - then))
        past.append((elapsed, cpu_time))


class Looks:
    """Looks at a process that leads a session of its own, and at all that it starts.

    Args:
        root: Its number; a child of this process that was not waited for yet.

    Attributes:
        base: Bytes that were resident before the call.
    """

    def __init__(self, root: int) -> None:
        self._root = psutil.Process(root)
        self._known = {self._root}
        self._times: dict[psutil.Process, tuple[float, float]] = {}
        self.base = self._private_base = 0
        self._before = 0.0, 0.0

    def begin(self) -> None:
        """Note what the process has and has used before its call.

        Raises:
            psutil.Error: If it has ended.
        """
        self.base = int(self._root.memory_info().rss)
        self._private_base = _private(self._root)
        times = self._root.cpu_times()
        self._before = float(times.user), float(times.system)

    def members(self) -> set[psutil.Process]:
        """Return the call's processes that are alive, zombies included.

        Whoever is below the first process, or below one that was once seen, or in its session.
        """
        root = self._root
        self._known = {each for each in self._known if each.is_running()} | {root}
        roots = {root}
        for pid in psutil.pids():
            try:
                session = os.getsid(pid)
            except OSError:  # it is gone, or nobody may know
                continue
            if session == root.pid and pid != root.pid:
                with contextlib.suppress(psutil.Error):
                    self._known.add(psutil.Process(pid))
        for each in self._known - roots:
            try:
                if os.getsid(each.pid) != root.pid:
                    roots.add(each)
            except OSError:
                continue
        for each in roots:
            with contextlib.suppress(psutil.Error):
                self._known.update(each.children(recursive=True))
        return {each for each in self._known if each.is_running()}

    def look(self) -> Look:
        """Look at all of them."""
        resident = largest = processes = threads = 0
        for each in self.members():
            try:
                with each.oneshot():
                    size = int(each.memory_info().rss)
                    times = each.cpu_times()
                    count = int(each.num_threads())
            except psutil.Error:  # gone, a zombie, or somebody else's by now (setuid)
                continue
            self._times[each] = float(times.user), float(times.system)
            if not size:  # a zombie
                continue
            resident += size
            largest = max(largest, size - self.base if each == self._root else size)
            processes += 1
            threads += count
        user = sum(each for each, _ in self._times.values()) - self._before[0]
        system = sum(each for _, each in self._times.values()) - self._before[1]
        rise = max(0, resident - self.base)
        return Look(rise, resident, min(largest, rise), processes, threads, user, system)

    def private(self) -> int:
        """Return the bytes that each process has to itself, on top of what the first had.

        Forked processes share what neither has written to, and their sizes have it once for
        each. Where the platform does not tell them apart, the sizes count (BSD).
        """
        found = sum(_private(each) for each in self.members())
        return max(0, found - self._private_base)

    def end(self, wait: Callable[[float], None]) -> None:
        """Kill all of them, stopped first so that none can fork meanwhile; wait for their end.

        Args:
            wait: Waits for the first one's end, so many seconds at most.
        """
        stopped: set[psutil.Process] = set()
        while new := self._alive() - stopped:
            for each in new:
                with contextlib.suppress(psutil.Error):
                    each.suspend()
            stopped |= new
        while left := self._alive():
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(left - {self._root}, timeout=_PATIENCE)
            wait(_PATIENCE)

    def _alive(self) -> set[psutil.Process]:
        return {each for each in self.members() if not _is_zombie(each)}


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _private(process: psutil.Process) -> int:
    try:
        found = process.memory_full_info()
        return int(getattr(found, "uss", found.rss))
    except psutil.Error:  # gone, or somebody else's
        return 0
