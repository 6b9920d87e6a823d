"""The peak of the memory of processes that come and go, from readings of each. Pure.

The sum over processes has no high-water mark of its own. Each process has one, which is reset
at every look: between two looks the sum was never above the sum of those marks, and at a look
it is the sum of what each has. The two ends of that bracket are apart only by what rose and
fell, in different processes, at different moments between the same two looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Reading(NamedTuple):
    """What one process has, in bytes, at a look.

    Attributes:
        private: Memory that surely is its own, now.
        shared: Shared memory, which others of the tree may count as well.
        peak: Most that can have been its own since the look before, shared memory included.
    """

    private: int
    shared: int
    peak: int


class _Span(NamedTuple):
    """When a process was there since the last look, in numbers of events, and its peak."""

    begin: int
    end: int
    peak: int


class TreeMemory:
    """Keeps the bracket of a tree's peak.

    Attributes:
        low: Bytes that the tree surely had, at its peak so far.
        high: Bytes that it cannot have exceeded, as far as each process was seen.
    """

    def __init__(self) -> None:
        self.low = 0
        self.high = 0
        self._events = 0
        self._born: dict[int, int] = {}
        self._ended: list[_Span] = []

    def born(self, pid: int) -> None:
        """Note that a process has come, at this point among the events."""
        self._events += 1
        self._born[pid] = self._events

    def died(self, pid: int, peak: int, certain: int = 0) -> None:
        """Note that a process has gone.

        Args:
            pid: Its number.
            peak: The most it can have had since the last look.
            certain: The most that it surely had.
        """
        self._events += 1
        self._ended.append(_Span(self._born.pop(pid, 0), self._events, peak))
        self.low = max(self.low, certain)

    def at_least(self, amount: int) -> None:
        """Note that the tree surely had so many bytes."""
        self.low = max(self.low, amount)

    def look(self, readings: Mapping[int, Reading], counted_twice: int = 0) -> None:
        """Take a reading of every process that is there; the marks begin anew with it.

        Args:
            readings: By process number.
            counted_twice: Bytes by which the sum of the readings exceeds what there is,
                since processes share them; known where the kernel was asked.
        """
        end = self._events + 1
        spans = self._ended
        spans += [_Span(self._born.get(pid, 0), end, each.peak) for pid, each in readings.items()]
        most = _most_at_once(spans) - counted_twice
        private = sum(each.private for each in readings.values())
        shared = max((each.shared for each in readings.values()), default=0)
        self.low = max(self.low, private + shared)
        self.high = max(self.high, most, self.low)
        self._ended = []
        self._events = 0
        self._born = {}


def _most_at_once(spans: list[_Span]) -> int:
    """Return the greatest sum of the peaks of spans that overlap in one point."""
    steps = sorted(
        [(span.begin, 1, span.peak) for span in spans]
        + [(span.end, 0, -span.peak) for span in spans]
    )
    now = most = 0
    for _, _, change in steps:
        now += change
        most = max(most, now)
    return most
