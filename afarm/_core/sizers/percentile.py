"""A percentile of what was seen, as Witt et al. size tasks; and Sizey's ensemble."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from statistics import median, pstdev

from ...resources import Resources, Usage
from .base import make_room
from .baselines import packed
from .models import Median, Model, Nearest, linear

# The last peaks that are looked at.
_KEPT = 500

# Sizey: how many predictions are judged, and from how many on.
_JUDGED = 100
_LEAST = 3


class Percentile:
    """A percentile of the peaks of a category; after a failure twice as much as failed.

    Witt, van Santen, Leser: "Learning Low-Wastage Memory Allocations for Scientific Workflows at
    IceCube", HPCS 2019; its simplest predictor, with the failure handling of that paper.

    Args:
        share: Which, from 0 to 1.
    """

    uses_features = False

    def __init__(self, share: float = 0.95) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"a percentile is a share above 0 and up to 1, not {share!r}")
        self._share = share
        self._order: dict[str, deque[int]] = {}
        self._sorted: dict[str, list[int]] = {}

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
        """Return the percentile; a whole node before anything is known, or on the third retry."""
        peaks = self._sorted.get(category)
        if not peaks or attempt >= 3:
            return packed(largest)
        size = peaks[min(len(peaks) - 1, int(self._share * len(peaks)))]
        if previous is not None and previous.memory is not None:
            size = max(size, 2 * previous.memory)
        return Resources(
            cores=1, memory=size if largest.memory is None else min(size, largest.memory)
        )

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Keep the peak of a finished call."""
        if exhausted:
            return
        make_room(category, self._order, self._sorted)
        order = self._order.setdefault(category, deque())
        peaks = self._sorted.setdefault(category, [])
        order.append(usage.memory)
        insort(peaks, usage.memory)
        if len(order) > _KEPT:
            del peaks[bisect_left(peaks, order.popleft())]


class _Ensemble:
    """The models of one category, and what each said of the last calls."""

    def __init__(self) -> None:
        self.models: list[Model] = [linear(), Nearest(), Median()]
        self.said: deque[tuple[int, tuple[float | None, ...]]] = deque(maxlen=_JUDGED)
        self.largest = 0

    def best(self) -> int:
        """Return the model with the best score of accuracy, the mean of 1 - |error| / peak."""
        scores = []
        for number in range(len(self.models)):
            errors = [
                min(1.0, abs(said[number] - peak) / max(1, peak))  # type: ignore[operator]
                for peak, said in self.said
                if said[number] is not None
            ]
            scores.append(1 - sum(errors) / len(errors) if errors else -1.0)
        return max(range(len(scores)), key=lambda number: scores[number])

    def offset(self, number: int) -> float:
        """Return what to add so that the least would have been wasted over the last calls."""
        pairs = [(peak, said[number]) for peak, said in self.said if said[number] is not None]
        errors = [peak - guess for peak, guess in pairs]  # type: ignore[operator]
        under = [error for error in errors if error > 0]
        offsets = [pstdev(errors), median(errors)]
        if under:
            offsets += [pstdev(under), median(under)]

        def wasted(offset: float) -> float:
            return sum(
                offset - error if error <= offset else 2 * peak
                for (peak, _), error in zip(pairs, errors, strict=True)
            )

        return max(0.0, min(offsets, key=wasted))


class Ensemble:
    """Several models, the most accurate so far, and an offset chosen by what it would have wasted.

    The idea of Bader, Skalski, Lehmann, Scheinert, Will, Thamsen, Kao: "Sizey: Memory-Efficient
    Execution of Scientific Workflow Tasks", CLUSTER 2024, with the models that need no
    training (line, neighbours, median) and the first feature of a call.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Ensemble] = {}

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
        """Return prediction and offset; after a failure the largest seen, then doubling."""
        known = self._known.get(category)
        if known is None or len(known.said) < _LEAST or attempt >= 3:
            return packed(largest)
        if previous is not None and previous.memory is not None:
            size = float(max(known.largest, 2 * previous.memory if attempt > 1 else 0))
        else:
            number = known.best()
            said = known.models[number].predict(_x(features))
            size = float(known.largest) if said is None else math.exp(said) + known.offset(number)
        return Resources(
            cores=1, memory=int(size if largest.memory is None else min(size, largest.memory))
        )

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Note what each model had said of a finished call, and let it learn."""
        if exhausted:
            return
        make_room(category, self._known)
        known = self._known.setdefault(category, _Ensemble())
        x, y = _x(features), math.log(max(1, usage.memory))
        said = [model.predict(x) for model in known.models]
        known.said.append(
            (usage.memory, tuple(None if each is None else math.exp(each) for each in said))
        )
        known.largest = max(known.largest, usage.memory)
        for model in known.models:
            model.learn(x, y)


def _x(features: Mapping[str, float]) -> float | None:
    value = next(iter(features.values()), 0.0)
    return math.log(value) if value > 0 else None
