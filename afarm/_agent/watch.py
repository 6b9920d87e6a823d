"""What the supervisor sees of one worker's calls while they run."""

from __future__ import annotations

import time
from dataclasses import replace

from .._monitor.limits import DISK_LIMITED, DISK_UNLIMITED, SLOW, most, pause
from .._monitor.proc import private_memory, read_io, read_stat, read_status
from .._monitor.tree import ProcessTree
from ..resources import Resources, Usage
from .page import BEGUN, ENDED, PROCESSOR, RESIDENT, STARTED
from .scratch import disk_usage

# A worker that has had nothing to do for so long is not looked at any more until the
# agent says that it gives it something.
_IDLE = 1.0

# Readings are told for calls that have run so long, and so often.
_TOLD_AFTER = 0.5
_TELL_EVERY = 1.0

# And so often of one that uses more than was expected, until the farm expects more of it; the
# first time at once.
_TELL_OUTGROWN = 0.1

_NEVER = float("inf")


class CallWatch:
    """Looks at the present call of a worker and everything it started.

    Args:
        pid: The worker.
        slot: Its words in the shared page.
        folder: Its scratch directory.
        tree: Finds descendants of the supervisor.
    """

    def __init__(self, pid: int, slot: memoryview, folder: str, tree: ProcessTree) -> None:
        self._pid = pid
        self._slot = slot
        self._folder = folder
        self._tree = tree
        self.limits = Resources()
        self._expected = 0
        self._paced_by = self.limits  # how often to look: more often near these
        self.sequence = 0
        self.due = _NEVER
        self.certain_memory = 0
        self._peaks = Usage(processes=0, threads=0)
        self._looked = 0.0
        self._active = 0.0
        self._disk_due = 0.0
        self._disk_due_first = 0.0
        self._told = 0.0
        self._disk = 0

    def begin(self, limits: Resources, expected: int, now: float) -> None:
        """Note that the worker is about to begin calls, or that these apply to it from now on.

        Args:
            limits: What they are ended for.
            expected: Bytes of memory that are predicted, and no limit: the farm is told
                at once when a call has more. 0: none.
            now: The time.
        """
        self.limits = limits
        self._expected = expected
        self._paced_by = replace(limits, memory=expected) if expected else limits
        self._active = now
        self._looked = now
        self.due = min(self.due, now + pause(self._paced_by, 0.0, 0, 0, 0.0))

    def look(self, now: float) -> Usage | None:
        """Return what the present call uses, as peaks so far; ``None`` if none runs.

        Also says in `due` when to look again.
        """
        begun = int(self._slot[BEGUN])
        if begun != self.sequence:
            self._next_call(begun, now)
        if begun == 0 or int(self._slot[ENDED]) == begun:
            self.due = now + SLOW if now - self._active < _IDLE else _NEVER
            return None
        self._active = now
        started = int(self._slot[STARTED])
        elapsed = max(0.0, (time.monotonic_ns() - started) * 1e-9) if started else 0.0
        before = self.certain_memory
        usage = self._measure(elapsed, now)
        self._peaks = most(self._peaks, usage)
        self.due = now + pause(
            self._paced_by, elapsed, self.certain_memory, self.certain_memory - before,
            now - self._looked,
        )  # fmt: skip
        self._looked = now
        return self._peaks

    def _next_call(self, begun: int, now: float) -> None:
        self.sequence = begun
        self.certain_memory = 0
        self._peaks = Usage(processes=0, threads=0)
        self._disk_due = now + (DISK_LIMITED if self.limits.disk is not None else DISK_UNLIMITED)
        self._told = now + _TOLD_AFTER - _TELL_EVERY
        self._disk = 0

    def worth_telling(self, now: float) -> bool:
        """Whether the farm should hear of the present reading.

        Every second, and more often of a call that has outgrown what was expected of it.
        """
        outgrown = 0 < self._expected < self.certain_memory
        if now - self._told < (_TELL_OUTGROWN if outgrown else _TELL_EVERY):
            return False
        self._told = now
        return True

    def take_peaks(self) -> Usage:
        """Return the peaks of the present call."""
        return self._peaks

    def _measure(self, elapsed: float, now: float) -> Usage:
        """Return what worker and tree have now. The worker's memory is its peak."""
        status = read_status(self._pid)
        stat = read_stat(self._pid)
        if status is None or stat is None:
            return self._peaks
        resident = int(self._slot[RESIDENT])
        own = max(0, status.high_water - resident)
        below = self._tree.below((self._pid,))
        anonymous, whole, threads, user, system = 0, status.resident, status.threads, 0.0, 0.0
        read, written = read_io(self._pid)
        for pid in below:
            other, other_stat = read_status(pid), read_stat(pid)
            if other is None or other_stat is None:
                continue
            anonymous += other.anonymous + other.shared
            whole += other.resident
            threads += other.threads
            user += other_stat.user
            system += other_stat.system
            more = read_io(pid)
            read, written = read + more[0], written + more[1]
        memory = self._certain(own, anonymous, {self._pid, *below} if below else set(), resident)
        self.certain_memory = memory
        if now >= self._disk_due:
            self._disk = disk_usage(self._folder)
            limited = self.limits.disk is not None
            spent = time.monotonic() - now
            self._disk_due = now + max(20 * spent, DISK_LIMITED if limited else DISK_UNLIMITED)
        # Before the call there was mostly importing and unpickling: user mode.
        before = int(self._slot[PROCESSOR]) * 1e-9
        return Usage(
            wall_time=elapsed,
            cpu_user=max(0.0, stat.user + user - before),
            cpu_system=stat.system + system,
            memory=memory,
            memory_low=memory if not below else own,
            memory_resident=max(status.high_water, whole),
            disk=self._disk,
            read_bytes=read,
            write_bytes=written,
            processes=1 + len(below),
            threads=threads,
            start=time.time() - elapsed,
        )

    def _certain(self, own: int, others: int, pids: set[int], resident: int) -> int:
        """Return the bytes that the tree surely has.

        Forked children share pages with their parent, and each counts them all. Where
        the plain sum comes near the limit, the kernel is asked for each one's part.
        """
        plain = own + others
        limit = self.limits.memory
        if not pids or limit is None or plain <= limit:
            return plain
        shares = [private_memory(pid) for pid in pids]
        if any(share < 0 for share in shares):
            return plain
        return min(plain, sum(shares))
