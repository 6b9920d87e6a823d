"""The default sizer: what its category has used and a margin, from the first call on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...resources import Resources, Usage
from ..request import STATED_CORES
from .base import MOST_CATEGORIES

# Of n samples from one distribution the next is above all of them with probability
# 1/(n + 1): the margin over the maximum starts at 100 % and falls to 10 %.
_MARGIN = 0.1
_MARGIN_OF_THE_FIRST = 0.9

# What a process may take on top without any change in what it does: an allocator's
# arenas, a thread's stack, a page cache of its own.
_SLACK = 32 << 20

# Allocations come in steps of an eighth of a power of two, so that calls of one category
# seldom differ in theirs: equal ones can take each other's place on a node.
_STEPS = 8

# The tries in which the largest node is reached: the default of `Farm(retries=)`.
_RETRIES = 3


class _Seen:
    """What one category has shown."""

    __slots__ = ("allocation", "count", "memory")

    def __init__(self) -> None:
        self.count = 0
        self.memory = 0
        self.allocation = Resources()

    def size(self) -> None:
        """Work out what the next one may use."""
        margin = _MARGIN + _MARGIN_OF_THE_FIRST / max(1, self.count)
        memory = _in_steps(self.memory * (1 + margin) + _SLACK)
        if memory != self.allocation.memory:
            self.allocation = Resources(cores=1, memory=memory)


class AutoSizer:
    """Sizes memory by the maxima seen; a fair share of a node before anything is known.

    Each invocation gets one core unless its user states otherwise. What it exhausted
    grows by doubling, faster where three retries would not reach the largest node.
    Attempts that were stopped count as what they used at least. Keeps a few numbers for
    each category.
    """

    uses_features = False

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

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
        """Return an allocation of cores and memory."""
        seen = self._seen.get(category)
        first = seen.allocation if seen is not None else _fair_share(largest, features)
        if previous is None:
            return first
        grown = [
            _grow(before, most, attempt)
            for before, most in (
                (previous.cores, largest.cores),
                (previous.memory, largest.memory),
                (previous.disk, largest.disk),
                (previous.gpus, largest.gpus),
            )
        ]
        sizes = [size for size in (grown[1], first.memory) if size is not None]
        memory = _in_steps(max(sizes)) if sizes else None
        if memory is not None and largest.memory is not None:
            memory = min(memory, largest.memory)
        return Resources(
            cores=grown[0],
            memory=memory,
            disk=None if grown[2] is None else int(grown[2]),
            gpus=None if grown[3] is None else int(grown[3]),
        )

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Keep the maximum and the count."""
        seen = self._entry(category)
        # A lower bound is no sample of what calls of the category use, so it narrows no
        # margin; but whoever comes next may well need as much.
        seen.count += not exhausted
        seen.memory = max(seen.memory, usage.memory)
        seen.size()

    def dump(self, categories: Iterable[str] | None = None) -> Mapping[str, object]:
        """Return the count and the maximum of each category."""
        return {
            name: [seen.count, seen.memory]
            for name in (self._seen if categories is None else categories)
            if (seen := self._seen.get(name)) is not None
        }

    def load(self, state: Mapping[str, object], *, trust: float = 1.0) -> None:
        """Take counts and maxima; less trust makes fewer samples of them, and the margin wider."""
        for name, value in state.items():
            match value:
                case [int(count), int(memory)] if count >= 0 and memory >= 0:
                    seen = self._entry(name)
                    seen.count += int(count * trust)
                    seen.memory = max(seen.memory, memory)
                    seen.size()

    def _entry(self, category: str) -> _Seen:
        seen = self._seen.get(category)
        if seen is None:
            if len(self._seen) >= MOST_CATEGORIES:
                del self._seen[next(iter(self._seen))]
            seen = self._seen[category] = _Seen()
        return seen


def _fair_share(largest: Resources, features: Mapping[str, float]) -> Resources:
    """Return the share of a node's memory that belongs to the invocation's cores."""
    if largest.memory is None:
        return Resources(cores=1)
    cores = features.get(STATED_CORES, 1.0)
    share = min(1.0, cores / largest.cores) if largest.cores else 1.0
    return Resources(cores=1, memory=int(largest.memory * share))


def _grow(before: float | None, most: float | None, attempt: int) -> float | None:
    """Return the next size: at least twice the last, and the most there is in three steps."""
    if before is None:
        return None
    if most is None or before <= 0:
        return before * 2
    left = max(1, _RETRIES + 1 - attempt)
    factor = max(2.0, (most / before) ** (1 / left))
    return min(most, before * factor) if left > 1 else most


def _in_steps(size: float) -> int:
    """Round up to an eighth of the power of two below."""
    whole = int(size)
    step = max(1 << 20, (1 << max(0, whole.bit_length() - 1)) // _STEPS)
    return -(-whole // step) * step
