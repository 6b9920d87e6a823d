"""The sizers that a better one is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from ...resources import Resources, Usage
from .base import MOST_CATEGORIES


class WholeNode:
    """Each invocation has the largest node to itself: never exhausted, never shared."""

    uses_features = False

    def allocate(
        self,
        category: str,
        features: Mapping[str, float],
        *,
        attempt: int,
        previous: Resources | None,
        largest: Resources,
        running: Usage | None = None,
    ) -> Resources:
        """Return all that is packed of the largest node."""
        return _packed(largest)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Learn nothing."""


class Unmanaged:
    """One invocation for each core; nothing else is considered or limited."""

    uses_features = False

    def allocate(
        self,
        category: str,
        features: Mapping[str, float],
        *,
        attempt: int,
        previous: Resources | None,
        largest: Resources,
        running: Usage | None = None,
    ) -> Resources:
        """Return one core."""
        return Resources(cores=1)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Learn nothing."""


class Fixed:
    """The same guess for everyone; who outgrows it gets the largest node.

    Args:
        resources: The guess.
    """

    uses_features = False

    def __init__(self, resources: Resources) -> None:
        self._guess = resources

    def allocate(
        self,
        category: str,
        features: Mapping[str, float],
        *,
        attempt: int,
        previous: Resources | None,
        largest: Resources,
        running: Usage | None = None,
    ) -> Resources:
        """Return the guess, or the largest node after it did not do."""
        return self._guess if previous is None else _packed(largest).over(self._guess)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Learn nothing."""


class MaxSeen:
    """As much memory as its category has ever used; a whole node before that, and after it.

    What Work Queue calls "max": one giant sizes everyone for it.
    """

    uses_features = False

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def allocate(
        self,
        category: str,
        features: Mapping[str, float],
        *,
        attempt: int,
        previous: Resources | None,
        largest: Resources,
        running: Usage | None = None,
    ) -> Resources:
        """Return the maximum seen, on one core."""
        seen = self._seen.get(category)
        if seen is None or previous is not None:
            return _packed(largest)
        return Resources(cores=1, memory=seen)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Keep the maximum."""
        if category not in self._seen and len(self._seen) >= MOST_CATEGORIES:
            del self._seen[next(iter(self._seen))]
        self._seen[category] = max(usage.memory, self._seen.get(category, 0))


def _packed(largest: Resources) -> Resources:
    return Resources(
        cores=largest.cores, memory=largest.memory, disk=largest.disk, gpus=largest.gpus
    )
