"""Greedy and exhaustive bucketing: sorted peaks, cut where the expected waste is least."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence

from ...resources import Resources, Usage
from .base import make_room
from .baselines import packed

# Calls that are explored with a fixed size before the first buckets, and that size: those of
# the paper.
_EXPLORE = 10
_EXPLORE_MEMORY = 1_000_000_000

# Exhaustive: break points that are tried at most.
_MOST_BUCKETS = 10

# The last peaks that are looked at; sorting all of them for each call would be quadratic.
_KEPT = 500

_GOLDEN = (5**0.5 - 1) / 2

Peaks = Sequence[tuple[int, float]]  # (bytes, significance), sorted by bytes


def waste(peaks: Peaks, breaks: Sequence[int]) -> float:
    """Return the expected waste of a call whose bucket is drawn by weight. Plain definition.

    Args:
        peaks: Sorted.
        breaks: The index of the last peak of each bucket; the last one is that of all peaks.

    For each bucket that the call truly belongs to, and each that is drawn first: too large a
    one wastes the difference; too small a one wastes itself and is followed by the larger
    ones. Phung, Ward, Chard, Thain: "Not All Tasks Are Created Equal: Adaptive Resource
    Allocation for Heterogeneous Tasks in Dynamic Workflows", WORKS 2021.
    """
    buckets = []
    begin = 0
    for end in breaks:
        inside = peaks[begin : end + 1]
        weight = sum(significance for _, significance in inside)
        mean = sum(peak * significance for peak, significance in inside) / (weight or 1.0)
        buckets.append((inside[-1][0], mean, weight))
        begin = end + 1
    whole = sum(weight for _, _, weight in buckets) or 1.0
    tops = [top for top, _, _ in buckets]
    shares = [weight / whole for _, _, weight in buckets]
    total = 0.0
    for need, (_, mean, _) in enumerate(buckets):
        # From the largest bucket down: what it costs if this one is drawn first.
        costs = [0.0] * len(buckets)
        for drawn in range(len(buckets) - 1, -1, -1):
            if drawn >= need:
                costs[drawn] = tops[drawn] - mean
            else:
                above = sum(shares[drawn + 1 :]) or 1.0
                later = sum(shares[k] * costs[k] for k in range(drawn + 1, len(buckets)))
                costs[drawn] = tops[drawn] + later / above
        total += shares[need] * sum(share * cost for share, cost in zip(shares, costs, strict=True))
    return total


def exhaustive(peaks: Peaks) -> list[int]:
    """Return the best of 1 to 10 evenly spaced buckets."""
    last = len(peaks) - 1
    best, least = [last], waste(peaks, [last])
    for count in range(2, min(_MOST_BUCKETS, len(peaks)) + 1):
        top = peaks[last][0]
        found = set()
        for part in range(1, count):
            border = top * part / count
            below = [at for at, (peak, _) in enumerate(peaks) if peak <= border]
            if below:
                found.add(below[-1])
        breaks = sorted({*found, last})
        wasted = waste(peaks, breaks)
        if wasted < least:
            best, least = breaks, wasted
    return best


def greedy(peaks: Peaks) -> list[int]:
    """Return buckets from cutting in two, again and again, where that wastes least."""
    breaks: list[int] = []
    pending = [(0, len(peaks) - 1)]
    while pending:
        begin, end = pending.pop()
        inside = peaks[begin : end + 1]
        cut = _best_cut(inside)
        if cut is None:
            breaks.append(end)
        else:
            pending += [(begin, begin + cut), (begin + cut + 1, end)]
    return sorted(breaks)


def _best_cut(peaks: Peaks) -> int | None:
    """Return where to cut, or ``None`` where not to cut wastes least. Linear in the peaks."""
    count = len(peaks)
    weight = sum(significance for _, significance in peaks) or 1.0
    mass = sum(peak * significance for peak, significance in peaks)
    top = peaks[-1][0]
    best, least = None, top - mass / weight
    low_weight = low_mass = 0.0
    for at in range(count - 1):
        peak, significance = peaks[at]
        low_weight += significance
        low_mass += peak * significance
        if peaks[at + 1][0] == peak:
            continue
        low = low_weight / weight
        high = 1 - low
        low_mean = low_mass / (low_weight or 1.0)
        high_mean = (mass - low_mass) / ((weight - low_weight) or 1.0)
        expected = (
            low * low * (peak - low_mean)
            + low * high * (top - low_mean)
            + high * low * (peak + top - high_mean)
            + high * high * (top - high_mean)
        )
        if expected < least:
            best, least = at, expected
    return best


class _Bucketing:
    """What both have in common: exploration, drawing a bucket, climbing from it."""

    uses_features = False

    def __init__(self, split: Callable[[Peaks], list[int]]) -> None:
        self._split = split
        self._drawn = 0
        self._peaks: dict[str, list[tuple[int, float]]] = {}
        self._counts: dict[str, int] = {}
        self._buckets: dict[str, list[tuple[int, float]]] = {}

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
        """Return one core and the top of a bucket, drawn among those above what did not do."""
        most = largest.memory
        before = previous.memory or 0 if previous is not None else 0
        if self._counts.get(category, 0) < _EXPLORE:
            size = 2 * before or _EXPLORE_MEMORY
        else:
            above = [bucket for bucket in self._of(category) if bucket[0] > before]
            size = self._draw(above) if above else 2 * before
        if attempt >= 3:
            return packed(largest)
        return Resources(cores=1, memory=size if most is None else min(size, most))

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Take a finished call; the later ones are the more significant."""
        if exhausted:
            return
        make_room(category, self._peaks, self._counts, self._buckets)
        count = self._counts[category] = self._counts.get(category, 0) + 1
        peaks = self._peaks.setdefault(category, [])
        insort(peaks, (usage.memory, float(count)))
        if len(peaks) > _KEPT:
            peaks.remove(min(peaks, key=lambda peak: peak[1]))
        if count < 2 * _EXPLORE or count % _EXPLORE == 0:
            self._buckets.pop(category, None)

    def _draw(self, buckets: Sequence[tuple[int, float]]) -> int:
        """Return the top of a bucket, each as often as its weight says.

        Multiples of the golden ratio, which are as even as random numbers are in the long run, and
        the same in each run.
        """
        self._drawn += 1
        left = (self._drawn * _GOLDEN) % 1.0 * sum(weight for _, weight in buckets)
        for top, weight in buckets:
            left -= weight
            if left < 0:
                return top
        return buckets[-1][0]

    def _of(self, category: str) -> list[tuple[int, float]]:
        """Return (top, weight) of each bucket."""
        found = self._buckets.get(category)
        if found is None:
            peaks = self._peaks[category]
            found, begin = [], 0
            for end in self._split(peaks):
                weight = sum(significance for _, significance in peaks[begin : end + 1])
                found.append((peaks[end][0], weight))
                begin = end + 1
            self._buckets[category] = found
        return found


class GreedyBucketing(_Bucketing):
    """Buckets from cutting the sorted peaks in two where that wastes least; see `waste`."""

    def __init__(self) -> None:
        super().__init__(greedy)


class ExhaustiveBucketing(_Bucketing):
    """The best of one to ten evenly spaced buckets; see `waste`."""

    def __init__(self) -> None:
        super().__init__(exhaustive)
