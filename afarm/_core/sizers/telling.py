"""Which of the features of a category's calls tells the most about their memory. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Features beyond these are not looked at.
_MOST_FEATURES = 8

# A feature is used from so many samples on, if the part of the variance that it explains is
# more than this; another takes its place only where it explains clearly more.
_LEAST_SAMPLES = 4
_EXPLAINS = 0.2
_CLEARLY = 1.2


class Telling:
    """How far the logarithm of each feature explains that of the memory."""

    def __init__(self) -> None:
        self._known: dict[str, _Correlation] = {}

    def learn(self, features: Mapping[str, float], y: float) -> None:
        """Take a sample: ``y`` is the logarithm of what a call with these features needed."""
        for name, value in features.items():
            known = self._known.get(name)
            if known is None:
                if len(self._known) >= _MOST_FEATURES:
                    continue
                known = self._known[name] = _Correlation()
            if value > 0:
                known.add(math.log(value), y)

    def better_than(self, feature: str | None) -> str | None:
        """Return the feature that explains clearly more than this one; ``None`` if none does."""
        best, most, now = None, -1.0, _EXPLAINS if feature is None else 0.0
        for name, known in self._known.items():
            explained = known.explained
            if explained > most:
                best, most = name, explained
            if name == feature:
                now = explained
        return None if best == feature or most < _CLEARLY * now else best


class _Correlation:
    """How far one of them does."""

    __slots__ = ("n", "x", "xx", "xy", "y", "yy")

    def __init__(self) -> None:
        self.n = self.x = self.y = self.xx = self.yy = self.xy = 0.0

    def add(self, x: float, y: float) -> None:
        self.n += 1
        self.x += x
        self.y += y
        self.xx += x * x
        self.yy += y * y
        self.xy += x * y

    @property
    def explained(self) -> float:
        """The share of the variance, 0 to 1."""
        if self.n < _LEAST_SAMPLES:
            return 0.0
        xx = self.xx - self.x * self.x / self.n
        yy = self.yy - self.y * self.y / self.n
        xy = self.xy - self.x * self.y / self.n
        return xy * xy / (xx * yy) if xx > 1e-9 and yy > 1e-9 else 0.0
