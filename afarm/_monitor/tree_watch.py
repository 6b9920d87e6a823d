"""What a call's processes have, seen from outside by looking again and again. Linux only.

Of the call's own process every look tells the kernel's high-water mark. As soon as there
are others, every process's mark is reset at every look, so that no rise between two looks
is missed, in whichever process it was; `TreeMemory` says what the sum can have been.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from .proc import Observed, Stat, Status, newest, private_memory, read_io, read_stat
from .tree import ProcessTree
from .tree_memory import Reading, TreeMemory

# Asking the kernel what of a process is shared takes 11 ms/GB (measured). It is asked where
# that is at least so much, and for at most so large a part of the time.
_WORTH_ASKING = 4 << 20
_SHARE_OF_TIME = 0.02

# So near its high-water mark a process is at its peak.
_NEARLY = 256 << 10


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the call's process had when the call began.

    Attributes:
        resident: Bytes resident.
        anonymous: Of these, bytes that no file is behind.
    """

    resident: int = 0
    anonymous: int = 0

    @property
    def mapped(self) -> int:
        """Bytes of mapped files that were resident."""
        return max(0, self.resident - self.anonymous)


class Times(NamedTuple):
    """Seconds of CPU and bytes from and to storage, of the whole tree, since it began."""

    user: float
    system: float
    read: int
    written: int


# What supervisors are called. Whoever is started by one measures itself, with the same marks:
# a call may have a farm, or a monitored call, of its own.
SUPERVISOR = b"afarm"


class _Child:
    """A descendant of the call's process.

    Attributes:
        measured: Whether it, or who started it, is measured by somebody else, so that its mark
            is not ours to reset.
        mark: Its high-water mark when it was last seen.
        inherited: Bytes that it may still share with the process it was forked from.
        held: The most of these that it had since its mark began; -1: nobody knows.
        files: Bytes of mapped files when its mark began.
        peak: The most it can have had of its own since the last look, when last seen.
    """

    __slots__ = (
        "files", "held", "image", "inherited", "mark", "measured", "observed", "peak", "seen",
    )  # fmt: skip

    def __init__(self, pid: int) -> None:
        self.observed = Observed(pid)
        self.image = (0, 0)
        self.inherited = 0
        self.held = -1
        self.files = 0
        self.peak = 0
        self.mark = 0
        self.measured = False
        self.seen = False

    def begin_anew(self, status: Status) -> None:
        """Let its mark begin with what is resident now."""
        self.mark = status.high_water
        if not self.measured and self.observed.reset_mark():
            self.files, self.held = status.file_backed, self.inherited

    def certain(self, status: Status) -> int:
        """Return the most that it surely had of its own since its mark began, or 0."""
        if self.measured or self.held < 0:
            return 0
        return status.high_water - max(self.files, status.file_backed) - self.held


class TreeWatch:
    """Looks at one call's process and everything below it.

    Args:
        pid: The process.
        tree: Finds descendants.

    Attributes:
        memory: The bracket of the tree's own memory.
        resident: Largest sum of resident memory that was seen, and at least the mark of the
            process.
        processes: Most processes alive that were seen.
        threads: Most threads alive that were seen.
        high_water: The process's highest mark, resets included.
        mapped_low: Bytes of mapped files when that was reached: at least.
        mapped_high: And at most.
        mapped: Bytes of mapped files of the process, now.
        growing: Bytes that the tree surely has now.
        missed: Whether processes may have come and gone unseen.
    """

    def __init__(self, pid: int, tree: ProcessTree) -> None:
        self._pid = pid
        self._tree = tree
        self._root = Observed(pid)
        self._image = (0, 0)
        self._newest = b""
        self.begin(Baseline())

    def begin(self, baseline: Baseline) -> None:
        """Forget everything: another call begins."""
        self._baseline = baseline
        self._forget_children()
        self.memory = TreeMemory()
        self.resident = self.processes = self.threads = 0
        self.high_water = self.mapped_low = self.mapped_high = 0
        self.mapped = baseline.mapped
        self.growing = 0
        self._own = 0
        self._reset = False
        self._counted_twice = 0
        self._ask_at = 0.0
        self._exiting: set[int] = set()
        self._ended = 0.0
        self._sharing: set[int] = set()
        self._pending = False

    def _forget_children(self) -> None:
        for child in getattr(self, "_children", {}).values():
            child.observed.close()
        self._children: dict[int, _Child] = {}

    def close(self) -> None:
        """Close the files of every process."""
        self._forget_children()
        self._root.close()

    @property
    def has_children(self) -> bool:
        """Whether there were descendants at the last look."""
        return bool(self._children)

    def look(self) -> bool:
        """Look once; return whether the call's process is still there."""
        status = self._root.read()
        if status is None:
            return False
        # At once, here and below: what rises between reading a mark and resetting it is lost.
        reset = self._reset and self._root.reset_mark()
        readings: dict[int, Reading] = {}
        resident, threads = status.resident, status.threads
        if self._children or not self._root.is_alone(status.threads):
            for child_status in self._look_below(status, readings):
                resident += child_status.resident
                threads += child_status.threads
        own = self._look_at_root(status)
        if readings:
            readings[self._pid] = own
            reset = reset or self._root.reset_mark()
            self.memory.look(readings, self._count_twice(readings))
        else:
            self.memory.look({self._pid: own})
        self._pending = False
        self._reset = reset
        self.growing = sum(each.private for each in readings.values()) or own.private + own.shared
        self.resident = max(self.resident, self.high_water, resident)
        self.processes = max(self.processes, 1 + len(self._children))
        self.threads = max(self.threads, threads)
        return True

    def quietness(self) -> tuple[bool, bool]:
        """Return whether nothing can have risen since the last look, and no processor was used.

        To be asked before every look. Without a page fault no memory grows, so that neither
        the marks nor the sums can be others than they were. What is not known so cheaply is
        taken for restless: a child that no look has seen. Of a process with threads, each of
        which may have children, this is asked only if any process has come on this machine.
        """
        quiet, idle, children, single = self._root.quietness()
        for child in self._children.values():
            its = child.observed.quietness()
            quiet, idle, single = quiet and its.quiet, idle and its.idle, single and its.single
            children += its.children
        if single:
            known = children == len(self._children)
        else:
            now = newest()
            known = bool(now) and now == self._newest
            known = known or (quiet and self._tree.descendants(self._pid) == set(self._children))
            self._newest = now
        return quiet and known and not self._pending, idle

    def _look_at_root(self, status: Status) -> Reading:
        """Return what the call's own process has, and had since the last look."""
        base = self._baseline
        before, self.mapped = self.mapped, status.file_backed
        low, high = sorted((before, self.mapped))
        if status.resident + _NEARLY >= status.high_water:
            low = high = self.mapped  # the peak is now
        rose = status.high_water > self.high_water
        if rose:
            self.high_water = status.high_water
            self.mapped_low, self.mapped_high = low, high
        private = max(0, status.anonymous - base.anonymous)
        now = private + status.shared
        peak = now
        if rose or self._reset:
            grown = status.high_water - base.resident
            self.memory.at_least(grown - max(0, high - base.mapped))
            peak = max(peak, grown - (low - base.mapped))
        else:
            peak = max(peak, self._own)
        self._own = now
        return Reading(private, status.shared, peak)

    def _look_below(self, root: Status, readings: dict[int, Reading]) -> list[Status]:
        """Return the status of each descendant, and add its reading to the others.

        Those that have come and gone are noted, and marks begin anew.
        """
        pids = self._tree.descendants(self._pid)
        found: list[Status] = []
        self._exiting &= pids
        for pid in sorted(pids - self._exiting - self._sharing):  # parents first, mostly
            child = self._children.get(pid)
            if child is None:
                child = _Child(pid)
            status = child.observed.read()
            # Between vfork and exec a child is its parent, as far as memory goes.
            if status is None or (not child.seen and status[:4] == root[:4]):
                continue
            if pid not in self._children:
                self._children[pid] = child
                self.memory.born(pid)
            self._see(child, status, root)
            self.memory.at_least(child.certain(status))
            readings[pid] = _reading_of(child, status)
            child.begin_anew(status)
            child.peak = readings[pid].peak
            found.append(status)
        for pid in [pid for pid in self._children if pid not in readings]:
            gone = self._children.pop(pid)
            gone.observed.close()
            self.memory.died(pid, gone.peak)
        return found

    # --- what a tracer tells: see `trace.Watcher`

    def born(self, pid: int, *, shares: bool) -> None:
        """Note that a process was forked, whose memory is its parent's so far."""
        self.processes = max(self.processes, 2 + len(self._children))
        if shares:
            self._sharing.add(pid)
            return
        child = self._add(pid)
        status = child.observed.read()
        stat = read_stat(pid)
        child.measured = stat is not None and self._is_measured(stat)
        if status is not None:
            child.inherited = status.anonymous
            child.begin_anew(status)

    def executed(self, pid: int) -> None:
        """Note that a process has nothing of its parent's any more."""
        self._sharing.discard(pid)
        if pid == self._pid:
            return
        child = self._children.get(pid)
        if child is None:
            child = self._add(pid)
        child.inherited = child.held = child.files = 0
        child.image = (pid, 0)  # nobody's but its own; those it forks have it from the kernel

    def exiting(self, pid: int) -> None:
        """Take the last reading of a process."""
        self._sharing.discard(pid)
        stat = read_stat(pid)
        self._ended += stat.alone if stat is not None else 0.0
        if pid == self._pid:
            self.look()
            return
        child = self._children.pop(pid, None)
        if child is None:
            return
        self._exiting.add(pid)
        status = child.observed.read()
        child.observed.close()
        self._pending = True
        if status is None:
            self.memory.died(pid, child.peak)
            return
        reading = _reading_of(child, status)
        certain = max(reading.private, status.high_water - status.file_backed - child.inherited)
        peak = max(certain, reading.peak - self._still_shared(child, status))
        self.memory.died(pid, peak, certain)
        self.resident = max(self.resident, status.high_water)

    def _still_shared(self, child: _Child, status: Status) -> int:
        """Return how much of what a process has inherited it surely never rewrote."""
        before = time.monotonic()
        if child.inherited < _WORTH_ASKING or before < self._ask_at:
            return 0
        part = private_memory(child.observed.pid)
        self._ask_at = before + (time.monotonic() - before) / _SHARE_OF_TIME
        everything = status.anonymous + status.shared
        return min(child.inherited, max(0, everything - part)) if part >= 0 else 0

    def _add(self, pid: int) -> _Child:
        child = self._children[pid] = _Child(pid)
        child.seen = True
        self.memory.born(pid)
        return child

    def conclude(self) -> None:
        """Count what has ended since the last look, if the call's process is gone itself."""
        if self._pending:
            self._pending = False
            others = {pid: Reading(0, 0, child.peak) for pid, child in self._children.items()}
            self.memory.look({self._pid: Reading(0, 0, self._own), **others})

    def _see(self, child: _Child, status: Status, root: Status) -> None:
        """Find out what a child has inherited, which changes when it executes a program."""
        if not child.seen:
            child.seen = True
            stat = read_stat(child.observed.pid)
            if stat is not None:
                child.image, child.measured = stat.image, self._is_measured(stat)
            if self._image == (0, 0):
                own = read_stat(self._pid)
                self._image = own.image if own is not None else (0, 0)
            relatives = {each.image for each in self._children.values() if each is not child}
            if child.image in relatives | {self._image}:
                # Mostly of the call's own process: the rest it has taken since.
                child.inherited = min(status.anonymous, root.anonymous)
        child.inherited = min(child.inherited, status.anonymous)

    def _is_measured(self, stat: Stat) -> bool:
        """Return whether a process is measured by somebody else."""
        parent = self._children.get(stat.parent)
        if parent is None:
            return False
        if parent.measured:
            return True
        its = read_stat(stat.parent)
        return its is not None and its.name == SUPERVISOR

    def _count_twice(self, readings: dict[int, Reading]) -> int:
        """Return by how much the sum of the readings surely exceeds what there is.

        A page that several processes map counts in each for its part (``smaps_rollup``).
        """
        shared = sum(each.shared for each in readings.values())
        inherited = sum(child.inherited for child in self._children.values())
        open_to_doubt = shared + inherited
        if open_to_doubt < _WORTH_ASKING:
            return 0
        before = time.monotonic()
        if before >= self._ask_at:
            parts = [private_memory(pid) for pid in readings]
            self._ask_at = before + (time.monotonic() - before) / _SHARE_OF_TIME
            if all(part >= 0 for part in parts):
                counted = sum(each.private for each in readings.values()) + open_to_doubt
                self._counted_twice = max(0, counted - sum(parts))
        return min(open_to_doubt, self._counted_twice)

    def times(self) -> Times:
        """Return CPU time and input and output of the tree, as far as it can still be asked."""
        user = system = 0.0
        read = written = 0
        alone = self._ended
        for pid in (self._pid, *self._tree.descendants(self._pid)):
            stat: Stat | None = read_stat(pid)
            if stat is None:
                continue
            user, system = user + stat.user, system + stat.system
            alone += 0.0 if pid in self._exiting else stat.alone
            more = read_io(pid)
            read, written = read + more[0], written + more[1]
        # Each counts those it has waited for. Who was traced and waited for by nobody is known
        # by its own.
        return Times(max(user, alone - system), system, read, written)


def _reading_of(child: _Child, status: Status) -> Reading:
    """Return what a descendant has, and had since the last look.

    A mark that somebody else resets says something of the time since that look if it rose.
    """
    private = max(0, status.anonymous - child.inherited)
    peak = status.anonymous + status.shared
    if not child.measured or status.high_water > child.mark:
        peak = max(peak, status.high_water - status.file_backed)
    return Reading(private, status.shared, peak)
