"""The first allocation of Tovar et al., which Work Queue and Parsl use."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence

from ...resources import Resources, Usage
from .base import make_room
from .baselines import packed

# How often it is worked out anew: Work Queue's interval, in finished calls.
_EVERY = 25


def minimum_waste(peaks: Sequence[tuple[int, float]]) -> int:
    """Return the memory to grant the first attempt so that the least is held and not used.

    With ``m`` the largest peak, the answer ``a`` minimises ``a E[t] + m E[t; r > a]``: the
    retry with ``m`` runs the whole time again. Tovar, da Silva, Juve, Deelman, Allcock, Thain,
    Livny: "A Job Sizing Strategy for High-Throughput Scientific Workflows", TPDS 29(2), 2018.

    Args:
        peaks: (bytes, seconds) of each finished call, in any order; not empty.

    Returns:
        One of the peaks.
    """
    ordered = sorted(peaks)
    largest = ordered[-1][0]
    total = over = sum(seconds for _, seconds in ordered)
    best, least = largest, float("inf")
    for number, (peak, seconds) in enumerate(ordered, 1):
        over -= seconds
        if number < len(ordered) and ordered[number][0] == peak:
            continue
        wasted = peak * total + largest * over
        if wasted < least:
            best, least = peak, wasted
    return best


def maximum_throughput(peaks: Sequence[tuple[int, float]]) -> int:
    """Return the memory to grant the first attempt so that the most calls end in a given time.

    With ``m`` the largest peak, the answer ``a`` maximises the rate
    ``((m / a) P(r <= a) + P(r > a)) / (E[t] + E[t; r > a])``; see `minimum_waste`.
    """
    ordered = sorted(peaks)
    count = len(ordered)
    total = sum(seconds for _, seconds in ordered)
    largest = ordered[-1][0]
    best, most = largest, -1.0
    over, above = total, count
    for number, (peak, seconds) in enumerate(ordered, 1):
        over, above = over - seconds, count - number
        if number < count and ordered[number][0] == peak:
            continue
        rate = (largest / max(1, peak) * (count - above) + above) / (total + over or 1.0)
        if rate > most:
            best, most = peak, rate
    return best


class FirstAllocation:
    """Sizes first attempts by `minimum_waste` or `maximum_throughput`, and retries by the largest.

    As Work Queue has it: whole nodes until 25 calls have finished, and again after each new
    maximum until the next time it is worked out.

    Args:
        throughput: Maximise throughput instead of minimising waste.
    """

    uses_features = False

    def __init__(self, *, throughput: bool = False) -> None:
        self._choose = maximum_throughput if throughput else minimum_waste
        self._peaks: dict[str, list[tuple[int, float]]] = {}
        self._first: dict[str, int] = {}
        self._since: dict[str, int] = {}

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
        """Return one core and the first allocation; the largest seen, or a whole node, after it."""
        first = self._first.get(category)
        if first is None:
            return packed(largest)
        if previous is None:
            return Resources(cores=1, memory=first)
        seen = self._peaks[category][-1][0]
        if previous.memory is not None and previous.memory < seen:
            return Resources(cores=1, memory=seen)
        return packed(largest)

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Take a finished call; stopped ones teach nothing here."""
        if exhausted:
            return
        make_room(category, self._peaks, self._first, self._since)
        peaks = self._peaks.setdefault(category, [])
        if peaks and usage.memory > peaks[-1][0]:
            self._first.pop(category, None)
            self._since[category] = 0
        insort(peaks, (usage.memory, max(usage.wall_time, 1e-6)))
        self._since[category] = self._since.get(category, 0) + 1
        if self._since[category] % _EVERY == 0:
            self._first[category] = self._choose(peaks)
