"""Counts for `Farm.stats`, kept up as invocations end."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from .resources import Resources, Usage

# Over which throughput is averaged: long enough to be calm, short enough to be of now.
WINDOW = 10.0


@dataclass(frozen=True, slots=True)
class Stats:
    """How a farm's work stands.

    Attributes:
        waiting: Invocations that have not started.
        running: Invocations given to nodes and not over.
        returned: Ended with a result.
        failed: Ended with an error.
        cancelled: Ended because the caller did not want them any more.
        attempts: Tries that ended, of all invocations.
        lost: Tries that ended because their node was lost.
        exhausted: Tries that ended because they outgrew their allocation.
        evictions: Tries that ended because their node's room was needed.
        throughput: Invocations that ended per second, over the last ten seconds.
        utilisation: Share of the cores of all nodes that is allocated now.
        allocation_efficiency: Memory used over memory allocated, both as peak times wall
            time, of all tries that had a limit; ``None`` before the first.
        failed_time: Seconds of wall time spent in tries that did not return.
    """

    waiting: int = 0
    running: int = 0
    returned: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts: int = 0
    lost: int = 0
    exhausted: int = 0
    evictions: int = 0
    throughput: float = 0.0
    utilisation: float = 0.0
    allocation_efficiency: float | None = None
    failed_time: float = 0.0

    @property
    def done(self) -> int:
        """Invocations that are over, well or not."""
        return self.returned + self.failed + self.cancelled


class Tally:
    """Counts what ended."""

    def __init__(self, at: float) -> None:
        self.returned = 0
        self.failed = 0
        self.cancelled = 0
        self.evictions = 0
        self.attempts: Counter[str] = Counter()
        self.failed_time = 0.0
        self._used = 0.0
        self._allocated = 0.0
        self._seconds: deque[tuple[int, int]] = deque([(int(at), 0)], maxlen=int(WINDOW) + 1)

    def attempt_ended(self, outcome: str, allocation: Resources, usage: Usage) -> None:
        """Note how one try went."""
        self.attempts[outcome] += 1
        if outcome != "returned":
            self.failed_time += usage.wall_time
        if allocation.memory:
            self._used += min(usage.memory, allocation.memory) * usage.wall_time
            self._allocated += allocation.memory * usage.wall_time

    def call_ended(self, at: float) -> None:
        """Note that an invocation is over."""
        second = int(at)
        if self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + 1)
        else:
            self._seconds.append((second, 1))

    def throughput(self, at: float) -> float:
        """Return how many invocations ended per second of late."""
        recent = [(second, count) for second, count in self._seconds if second > at - WINDOW - 1]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(at - recent[0][0], 1.0)

    @property
    def efficiency(self) -> float | None:
        """Memory used over memory allocated, weighted by time."""
        return self._used / self._allocated if self._allocated else None
