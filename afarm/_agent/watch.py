"""What the supervisor sees of one worker's calls while they run."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from .._monitor.curve import Curve
from .._monitor.limits import (
    DISK_EVERY,
    DISK_SHARE,
    FAST,
    LONG,
    SLOW,
    WITH_CHILDREN,
    most,
    next_look,
    pause,
)
from .._monitor.tree import ProcessTree
from .._monitor.tree_watch import Baseline, Times, TreeWatch
from ..resources import Moment, Resources, Source, Usage
from .page import (
    ANONYMOUS,
    BEGUN,
    ENDED,
    FILE_HIGH,
    FILE_LAST,
    FILE_LOW,
    HIGH_WATER,
    RESIDENT,
    SPAWNING,
    STARTED,
    SYSTEM,
    TRACE,
    TRACED,
    USER,
    WATCHED,
)
from .scratch import DiskWalk
from .slot_group import Call

# A worker that has had nothing to do for so long is not looked at any more until the
# agent says that it gives it something.
_IDLE = 1.0

# Readings are told for calls that have run so long, and so often.
_TOLD_AFTER = 0.5
_TELL_EVERY = 1.0

# And so often of one that uses more than was expected, until the farm expects more of it; the
# first time at once.
_TELL_OUTGROWN = 0.1

# How often CPU time and input and output are read, and over how long `Usage.cores_peak` is.
_TIMES_EVERY = 0.25
_PEAK_OVER = 1.0

# A walk through the scratch directory goes on for so long in each look, so that limits are
# looked at meanwhile.
_WALK = 0.002

# A call that has touched no page and used no processor for so long is looked at less often.
_QUIET_FOR = 1.0

# As long as it touches none, one look in so long is a close one, which costs ten times as much,
# if it uses no processor either; else one in `_TIMES_EVERY`.
_IDLE_EVERY = 1.0

_NEVER = float("inf")


class CallWatch:
    """Looks at the present call of a worker and everything it started.

    Args:
        pid: The worker.
        slot: Its words in the shared page.
        folder: Its scratch directory.
        tree: Finds descendants of the supervisor.
        grouped: Whether a control group bounds the slot.

    Attributes:
        seen: What is seen of its processes.
        sequence: The number of the present call.
        due: When to look again.
        traced: Whether all processes of the present call were traced.
    """

    def __init__(
        self, pid: int, slot: memoryview, folder: str, tree: ProcessTree, grouped: bool = False
    ) -> None:  # fmt: skip
        self._sources = Source.WATCH | Source.GROUP if grouped else Source.WATCH
        self._slot = slot
        self._folder = folder
        self.seen = TreeWatch(pid, tree)
        self.limits = Resources()
        self._expected = 0
        self._paced_by = self.limits  # how often to look: more often near these
        self.sequence = 0
        self.due = _NEVER
        self._active = 0.0
        self._next_call(0, 0.0)

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

    def _next_call(self, begun: int, now: float) -> None:
        slot = self._slot
        self.sequence = begun
        slot[WATCHED] = 0
        self.seen.begin(Baseline(int(slot[RESIDENT]), int(slot[ANONYMOUS])))
        self._peaks = Usage(processes=0, threads=0)
        self.curve = Curve()
        self._times = Times(0.0, 0.0, 0, 0)
        self._times_due = now + _TIMES_EVERY
        self._processor: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._cores_peak = 0.0
        self._walk: DiskWalk | None = None
        self.traced = False
        self._disk_due = now + DISK_EVERY
        self._disk = 0
        self._told = now + _TOLD_AFTER - _TELL_EVERY
        self._looked = self._looked_closely = self._moved = self._worked = now
        self._walked = 0.0  # when the last walk through the scratch directory began

    @property
    def certain_memory(self) -> int:
        """Bytes that the present call surely had at its peak so far."""
        return self.seen.memory.low

    @property
    def for_group(self) -> Call:
        """What a control group is to know of the present call."""
        memory = None if self._expected else self.limits.memory
        return Call(memory, self.limits.processes, max(0, self.seen.growing))

    def look(self, now: float) -> Usage | None:
        """Return what the present call uses, as peaks so far.

        ``None`` if none runs, or nothing is new. Also says in `due` when to look again.
        """
        begun = int(self._slot[BEGUN])
        if begun != self.sequence:
            self._next_call(begun, now)
        if begun == 0 or int(self._slot[ENDED]) == begun:
            self.due = now + SLOW if now - self._active < _IDLE else _NEVER
            return None
        self._active = now
        quiet, idle = self.seen.quietness()
        if not idle:
            self._worked = now
        if not quiet:
            self._moved = now
        elif self._may_skip(now, _IDLE_EVERY if idle else _TIMES_EVERY):
            self._pace(self._elapsed(), 0, now)
            return None
        return self._look(begun, now)

    def _may_skip(self, now: float, patience: float) -> bool:
        """Whether a call that has touched no page need not be looked at closely now."""
        limits = self.limits
        return (
            now - self._looked_closely < patience - FAST
            and self._walk is None
            and (now < self._disk_due or self._worked < self._walked)
            and limits.cpu_time is None
            and (limits.wall_time is None or self._elapsed() < limits.wall_time)
        )

    def _elapsed(self) -> float:
        started = int(self._slot[STARTED])
        return max(0.0, (time.monotonic_ns() - started) * 1e-9) if started else 0.0

    def _pace(self, elapsed: float, grown: int, now: float) -> None:
        """Say when to look again."""
        seen = self.seen
        quiet = now - max(self._moved, self._worked) >= _QUIET_FOR
        paced_by = self._paced_by
        if 0 < self._expected < seen.growing:
            paced_by = self.limits  # it has outgrown the prediction, and is not ended for that
        wait = pause(
            paced_by, elapsed, max(seen.growing, 0), grown, now - self._looked,
            quiet=quiet, threads=seen.threads,
        )  # fmt: skip
        if int(self._slot[SPAWNING]) == self.sequence or seen.has_children:
            wait = min(wait, SLOW if quiet else WITH_CHILDREN)
        self.due = next_look(now, wait)
        self._looked = now

    def _look(self, begun: int, now: float) -> Usage:
        elapsed = self._elapsed()
        self._looked_closely = now
        seen = self.seen
        before = seen.growing
        if seen.look():
            self._tell_worker()
            self._look_further(elapsed, now)
        self._peaks = most(self._peaks, self._usage(elapsed))
        moment = Moment(elapsed, seen.growing, sum(self._times[:2]), seen.processes)
        self.curve.add(moment)
        self._pace(elapsed, seen.growing - before, now)
        return self._peaks

    def look_last(self) -> Usage:
        """Look once more, at everything, while what the last call started is still there."""
        now = time.monotonic()
        self._times_due = now
        begun = int(self._slot[BEGUN])
        if begun != self.sequence:
            self._next_call(begun, now)
        if begun:
            self._look(begun, now)
        return self._peaks

    def _tell_worker(self) -> None:
        """Let the worker know what it cannot see at its end: see `page`."""
        slot, seen = self._slot, self.seen
        slot[WATCHED] = 0
        slot[HIGH_WATER] = seen.high_water
        slot[FILE_LOW] = seen.mapped_low
        slot[FILE_HIGH] = seen.mapped_high
        slot[FILE_LAST] = seen.mapped
        slot[WATCHED] = self.sequence

    def _look_further(self, elapsed: float, now: float) -> None:
        """Read what need not be read at every look, where it is time."""
        if now >= self._times_due or self.limits.cpu_time is not None:
            self._times_due = now + _TIMES_EVERY
            self._look_at_times(elapsed)
        if self._walk is None and now >= self._disk_due:
            self._walk = DiskWalk(self._folder)
            self._walked = now
        if self._walk is None:
            return
        over = self._walk.go_on(_WALK)
        self._disk = max(self._disk, self._walk.total)
        if over:
            self._disk_due = now + max(DISK_EVERY, self._walk.spent / DISK_SHARE)
            self._walk = None

    def _look_at_times(self, elapsed: float) -> None:
        times = self.seen.times()
        self._times = times._replace(
            user=max(0.0, times.user - int(self._slot[USER]) * 1e-9),
            system=max(0.0, times.system - int(self._slot[SYSTEM]) * 1e-9),
        )
        processor = self._times.user + self._times.system
        past = self._processor
        while len(past) > 1 and past[1][0] <= elapsed - _PEAK_OVER:
            past.popleft()
        then, used = past[0]
        if elapsed - then >= _PEAK_OVER:
            self._cores_peak = max(self._cores_peak, (processor - used) / (elapsed - then))
        past.append((elapsed, processor))

    def worth_telling(self, now: float) -> bool:
        """Whether the farm should hear of the present reading.

        Every second, and more often of a call that has outgrown what was expected of it.
        """
        outgrown = 0 < self._expected < self.certain_memory
        if now - self._told < (_TELL_OUTGROWN if outgrown else _TELL_EVERY) - FAST:
            return False
        self._told = now
        return True

    def take_peaks(self) -> Usage:
        """Return the peaks of the present call."""
        self.seen.conclude()
        if self.traced:
            self._look_at_times(self._peaks.wall_time)
        self._peaks = most(self._usage(self._peaks.wall_time), self._peaks)
        return self._peaks

    @property
    def to_be_traced(self) -> bool:
        """Whether the present call's processes are to be traced, and are not yet."""
        slot = self._slot
        begun = int(slot[BEGUN])
        if not begun or slot[TRACE] != begun or slot[TRACED] >= begun:
            return False
        return int(slot[SPAWNING]) == begun or self.seen.has_children

    def note_traced(self, traced: bool) -> None:
        """Let the call go on that waits for being traced.

        Args:
            traced: Whether it is; it may be impossible here.
        """
        # Whoever had children before may have had others that nobody saw.
        self.traced = traced and not self.seen.has_children
        self._slot[TRACED] = self._slot[BEGUN]

    def take_curve(self) -> bytes:
        """Return how the present call's usage went, packed; empty if that is not worth it."""
        return self.curve.pack() if self._peaks.wall_time >= LONG else b""

    def close(self) -> None:
        """Close what is open for reading the worker."""
        self.seen.close()

    def _usage(self, elapsed: float) -> Usage:
        """Return what was seen so far."""
        seen, times = self.seen, self._times
        sources = self._sources
        if seen.processes > 1:
            sources |= Source.TREE
        if self.traced:
            sources |= Source.TRACE
        return Usage(
            wall_time=elapsed,
            cpu_user=times.user,
            cpu_system=times.system,
            memory=seen.memory.high,
            memory_low=seen.memory.low,
            memory_resident=seen.resident,
            disk=self._disk,
            read_bytes=times.read,
            write_bytes=times.written,
            processes=seen.processes,
            threads=seen.threads,
            cores_peak=self._cores_peak,
            sources=int(sources),
            start=time.time() - elapsed,
        )
