"""The sizers that a better one is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from ...resources import Resources, Usage
from .base import make_room


class Oracle:
    """Knows what each call needs: the peak of its memory, in bytes, and its cores are its features.

    For replays of traces: the best that hard limits can do.

    Args:
        memory: The name of the feature with the peak.
        cores: The name of the feature with the cores.
    """

    def __init__(self, memory: str = "oracle.memory", cores: str = "oracle.cores") -> None:
        self._memory = memory
        self._cores = cores

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
        """Return what it needs, and a whole node should it have needed more after all."""
        if previous is not None:
            return packed(largest)
        return Resources(cores=features[self._cores], memory=int(features[self._memory]))

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Learn nothing: it knows."""


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
        return packed(largest)

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
        return self._guess if previous is None else packed(largest).over(self._guess)

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
            return packed(largest)
        return Resources(cores=1, memory=seen)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Keep the maximum."""
        make_room(category, self._seen)
        self._seen[category] = max(usage.memory, self._seen.get(category, 0))


def packed(largest: Resources) -> Resources:
    """Return all that is packed of a node."""
    return Resources(
        cores=largest.cores, memory=largest.memory, disk=largest.disk, gpus=largest.gpus
    )
