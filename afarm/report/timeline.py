"""How much of something was taken over time, as averages over equal steps."""

from __future__ import annotations

import math
from collections.abc import Sequence


class Timeline:
    """Adds up what intervals take, at a cost that does not depend on their length.

    Args:
        begin: Where the first step begins.
        end: Where the last ends.
        steps: How many there are.
    """

    def __init__(self, begin: float, end: float, steps: int) -> None:
        self._begin = begin
        self._step = max(end - begin, 1e-9) / steps
        self._steps = steps
        self._partial = [0.0] * (steps + 1)  # amount x share of the step
        self._change = [0.0] * (steps + 2)  # of the amount, over whole steps

    def add(self, begin: float, end: float, amount: float) -> None:
        """Take ``amount`` from ``begin`` to ``end``; what lies outside does not count."""
        first = min(max((begin - self._begin) / self._step, 0.0), self._steps)
        last = min(max((end - self._begin) / self._step, 0.0), self._steps)
        if not first < last or not amount:
            return
        low, high = math.floor(first), math.floor(last)
        if low == high:
            self._partial[low] += amount * (last - first)
            return
        self._partial[low] += amount * (low + 1 - first)
        self._partial[high] += amount * (last - high)
        self._change[low + 1] += amount
        self._change[high] -= amount

    def averages(self) -> list[float]:
        """Return the average amount in each step."""
        found = []
        level = 0.0
        for at in range(self._steps):
            level += self._change[at]
            found.append(max(0.0, level + self._partial[at]))
        return found

    def shares(self, whole: float) -> Sequence[float]:
        """Return the averages as shares of a capacity; nothing if that is not known."""
        return [average / whole for average in self.averages()] if whole else ()
