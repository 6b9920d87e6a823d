"""Models of what a call of one category needs, from its features and those that went before.

All are of logarithms: what calls need spreads over orders of magnitude, and errors are factors.
Each learns from one sample at a time and takes the same time for each.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable
from typing import Protocol

# Samples that a median is of: enough for its quantiles, and what is older was different.
_REMEMBERED = 128
_RECENT = 12
_NEAREST = 5
_NEIGHBOURS = 256

# Each sample counts so much less for those that come after it: half after 70.
_FADE = 0.99

# No answer is beyond 1e26 bytes: where all samples are close to each other a line is steep.
MOST = 60.0

# A regression says something from so many samples on, and not far beyond what it has seen.
_LEAST = 4
_BEYOND = math.log(4.0)


class Model(Protocol):
    """Predicts the logarithm of what a call needs."""

    def predict(self, x: float | None) -> float | None:
        """Return the logarithm of the need, or ``None`` where nothing can be said.

        Args:
            x: The logarithm of the feature that tells the most, if there is one.
        """

    def learn(self, x: float | None, y: float) -> None:
        """Take a sample: ``y`` is the logarithm of what a call with ``x`` needed."""


class Median:
    """The median of the last samples, whatever the features are."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._most = most

    def predict(self, x: float | None) -> float | None:
        count = len(self._sorted)
        return self._sorted[count // 2] if count else None

    def learn(self, x: float | None, y: float) -> None:
        self._order.append(y)
        insort(self._sorted, y)
        if len(self._order) > self._most:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]


def recent() -> Median:
    """Return the median of the last few: it follows a drift at once."""
    return Median(_RECENT)


class Regression:
    """Least squares with fading memory; of logarithms, a power law.

    Args:
        straight: Fit a straight line to the values themselves instead.
    """

    def __init__(self, *, straight: bool = False) -> None:
        self._straight = straight
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._count = 0
        self._least = math.inf
        self._most = -math.inf
        self._slope: float | None = None
        self._fitted = False

    def predict(self, x: float | None) -> float | None:
        if x is None or self._count < _LEAST:
            return None
        if not self._fitted:
            self._slope = self._fit()
            self._fitted = True
        slope = self._slope
        if slope is None:
            return None
        if x > self._most:
            x = min(x, self._most + _BEYOND)
        elif x < self._least:
            x = max(x, self._least - _BEYOND)
        at = math.exp(x) if self._straight else x
        found = self._y / self._n + slope * (at - self._x / self._n)
        if self._straight:
            if not found > 0:
                return None
            found = math.log(found)
        return max(-MOST, min(MOST, found))

    def _fit(self) -> float | None:
        """Return the slope of the line; ``None`` while all have been at one place."""
        mean = self._x / self._n
        spread = self._xx / self._n - mean * mean
        if spread <= 1e-9 * max(1.0, mean * mean):
            return None
        return (self._xy / self._n - mean * self._y / self._n) / spread

    def learn(self, x: float | None, y: float) -> None:
        if x is None:
            return
        self._count += 1
        self._fitted = False
        if x < self._least:
            self._least = x
        if x > self._most:
            self._most = x
        if self._straight:
            x, y = math.exp(x), math.exp(y)
        self._n = self._n * _FADE + 1
        self._x = self._x * _FADE + x
        self._y = self._y * _FADE + y
        self._xx = self._xx * _FADE + x * x
        self._xy = self._xy * _FADE + x * y


def power_law() -> Regression:
    """Return a line through the logarithms."""
    return Regression()


def linear() -> Regression:
    """Return a line through the values: a base, and so much for each byte or item."""
    return Regression(straight=True)


class Nearest:
    """The median of those whose feature was closest; of equally close ones the latest."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        # By feature, and where that is equal in the order in which they came.
        self._xs: list[float] = []
        self._ys: list[float] = []

    def predict(self, x: float | None) -> float | None:
        known = self._xs
        count = len(known)
        if x is None or not count:
            return None
        low = high = bisect_right(known, x)
        for _ in range(min(_NEAREST, count)):
            if low == 0 or (high < count and known[high] - x < x - known[low - 1]):
                high += 1
            else:
                low -= 1
        near = sorted(self._ys[low:high])
        return near[len(near) // 2]

    def learn(self, x: float | None, y: float) -> None:
        if x is None:
            return
        self._order.append(x)
        at = bisect_right(self._xs, x)
        self._xs.insert(at, x)
        self._ys.insert(at, y)
        if len(self._order) > _NEIGHBOURS:
            oldest = bisect_left(self._xs, self._order.popleft())
            del self._xs[oldest], self._ys[oldest]


MODELS: tuple[Callable[[], Model], ...] = (Median, recent, power_law, linear, Nearest)

# So many of them, the first ones, do not look at the feature.
FEATURELESS = 2
