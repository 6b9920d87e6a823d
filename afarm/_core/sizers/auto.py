"""The default sizer: what its category has used, by what is known of each call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ...resources import Resources, Usage
from ..request import STATED_CORES
from .base import make_room
from .history import SLACK, History, sample_of, samples_in

# Allocations come in steps of an eighth of a power of two, so that calls of one category
# seldom differ in theirs: equal ones can take each other's place on a node.
_STEPS = 8

# The tries in which the largest node is reached: the default of `Farm(retries=)`.
_RETRIES = 3

# From so many samples on a category says something about another one. What all of them say is
# worked out anew when there is something new of one in sixteen: of a thousand it takes 2 ms.
_TELLING = 3
_ANEW = 16

# Cores are granted in quarters, and less than a whole one only from so many samples on:
# calls that mostly wait share a core.
_QUARTER = 0.25
_SURE_OF_CORES = 5


class AutoSizer:
    """Learns for each category, from the first call on, what its calls need.

    Memory: a small ensemble (median, recent median, power law and line in the feature that
    explains the most, nearest neighbours), each judged by what it predicted before it saw
    the answer; the model and the margin above it are those that would have cost the least,
    memory held and unused against time lost in calls that were stopped. Stopped calls count as
    lower bounds. Cores and disk: from their own usage. Before anything is known: what other
    categories need, else a fair share of a node.

    Attributes:
        elastic: Whether a call that outgrows its allocation grows in place, so that a small
            margin costs little; `FarmState` sets it.
    """

    uses_features = True

    def __init__(self) -> None:
        self.elastic = False
        self._known: dict[str, History] = {}
        self._usual: float | None = None  # what categories need, generously
        self._unheeded = 0  # calls that were learned from since

    # --- asked by the core

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
        """Return an allocation of cores, memory and, where it is used, disk."""
        history = self._known.get(category)
        if history is not None and largest.memory is not None and largest.cores:
            history.fair = largest.memory / largest.cores
        if previous is not None:
            return self._after(history, features, attempt, previous, largest)
        size = history.size(features) if history is not None else None
        if size is None:
            size = self._unknown(largest, features)
            if running is None:  # as it is: rounded up, fair shares would not fit together
                memory = None if size is None else int(min(size, largest.memory or size))
                return Resources(cores=self._cores(history), memory=memory)
        else:
            size += SLACK
        if running is not None and size is not None and running.memory > size:
            beyond = history.size_beyond(features, running.memory) if history is not None else None
            size = max(beyond or 0.0, 1.25 * running.memory)
        return Resources(
            cores=self._cores(history),
            memory=_in_steps(size, largest.memory),
            disk=self._disk(history, largest.disk),
        )

    def telling(self, category: str) -> str | None:
        """Return the feature that the calls of a category are told apart by, if one is of use."""
        history = self._known.get(category)
        return None if history is None else history.feature

    def similar(self, category: str, features: Mapping[str, float]) -> int | None:
        """Return that feature in steps of an eighth of an octave: 9 % do not tell calls apart."""
        history = self._known.get(category)
        if history is None or history.feature is None:
            return None
        value = features.get(history.feature, 0.0)
        return round(_STEPS * math.log2(value)) if value > 0 else None

    def wants_features(self, category: str) -> bool:
        """Tell whether it is worth finding out features of the next calls of a category."""
        history = self._known.get(category)
        return history is None or history.wants_features

    def predicted_by(self, category: str) -> str | None:
        """Return the feature that predictions follow from, if the model believed now uses one."""
        history = self._known.get(category)
        return None if history is None or not history.follows_feature else history.feature

    def observe(
        self, category: str, features: Mapping[str, float], usage: Usage, *, exhausted: bool
    ) -> None:
        """Take what an attempt used; with ``exhausted``, what it used at least."""
        history = self._history(category)
        self._unheeded += 1
        if exhausted:
            history.learn_stopped(usage.memory, features)
        elif not history.has_seen_enough(usage, features):
            history.learn(sample_of(usage, features))

    def expect(self, category: str, features: Mapping[str, float]) -> Usage:
        """Return what the next call will probably use; zeros where nothing is known."""
        history = self._known.get(category)
        if history is None:
            return Usage()
        y = history.expected(features)
        wall_time = history.wall_time or 0.0
        return Usage(
            wall_time=wall_time,
            cpu_user=history.cores * wall_time,
            memory=0 if y is None else int(math.exp(y)),
            disk=int(history.disk),
        )

    # --- what outlives a run: `Remembering`

    def dump(self, categories: Iterable[str] | None = None) -> Mapping[str, object]:
        """Return the last samples of each category."""
        return {
            name: history.dump()
            for name in (self._known if categories is None else categories)
            if (history := self._known.get(name)) is not None
        }

    def load(self, state: Mapping[str, object], *, trust: float = 1.0) -> None:
        """Learn from samples of an earlier run; with less trust, from the latest of them."""
        for name, value in state.items():
            samples = list(samples_in(value))
            kept = math.ceil(len(samples) * trust)
            for sample in samples[len(samples) - kept :]:
                self._history(name).learn(sample)
                self._unheeded += 1

    # --- how it answers

    def _history(self, category: str) -> History:
        history = self._known.get(category)
        if history is None:
            make_room(category, self._known)
            history = self._known[category] = History(elastic=self.elastic)
        return history

    def _unknown(self, largest: Resources, features: Mapping[str, float]) -> float | None:
        """Return bytes for a category of which nothing is known."""
        fair = _fair_share(largest, features)
        usual = self._usual_size()
        if usual is None:
            return fair
        return usual if fair is None else min(usual, 4 * fair)

    def _usual_size(self) -> float | None:
        """Return bytes that do for most categories; ``None`` while few are known."""
        if self._unheeded and _ANEW * self._unheeded >= len(self._known):
            self._unheeded = 0
            telling = sorted(
                size
                for history in self._known.values()
                if history.count >= _TELLING and (size := history.size({})) is not None
            )
            enough = len(telling) >= _TELLING
            self._usual = 1.5 * telling[int(0.75 * len(telling))] if enough else None
        return self._usual

    def _after(
        self,
        history: History | None,
        features: Mapping[str, float],
        attempt: int,
        previous: Resources,
        largest: Resources,
    ) -> Resources:
        """Return the next size after one that did not do."""
        memory: float | None = None
        if previous.memory is not None:
            beyond = history.size_beyond(features, previous.memory) if history is not None else None
            grown = _grow(previous.memory, largest.memory, attempt)
            if beyond is not None and attempt < _RETRIES:
                memory = max(beyond, 1.25 * previous.memory)
            else:
                memory = grown
        return Resources(
            cores=_grow(previous.cores, largest.cores, attempt),
            memory=_in_steps(memory, largest.memory),
            disk=_in_steps(_grow(previous.disk, largest.disk, attempt), largest.disk),
            gpus=previous.gpus,
        )

    def _cores(self, history: History | None) -> float:
        if history is None or not history.count:
            return 1.0
        quarters = max(1, math.ceil(history.cores / _QUARTER - 0.1)) * _QUARTER
        return quarters if quarters >= 1 or history.count >= _SURE_OF_CORES else 1.0

    def _disk(self, history: History | None, most: int | None) -> int | None:
        if history is None or history.disk <= 0:
            return None
        return _in_steps(1.5 * history.disk + (64 << 20), most)


def _fair_share(largest: Resources, features: Mapping[str, float]) -> float | None:
    """Return the share of a node's memory that belongs to the invocation's cores."""
    if largest.memory is None:
        return None
    cores = features.get(STATED_CORES, 1.0)
    share = min(1.0, cores / largest.cores) if largest.cores else 1.0
    return largest.memory * share


def _grow(before: float | None, most: float | None, attempt: int) -> float | None:
    """Return the next size: at least twice the last, and the most there is in three steps."""
    if before is None:
        return None
    if most is None or before <= 0:
        return before * 2
    left = max(1, _RETRIES + 1 - attempt)
    factor = max(2.0, (most / before) ** (1 / left))
    return min(most, before * factor) if left > 1 else most


def _in_steps(size: float | None, most: float | None = None) -> int | None:
    """Round up to an eighth of the power of two below, and down to the most there is."""
    if size is None:
        return None
    whole = max(1, int(size))
    step = max(1 << 20, (1 << max(0, whole.bit_length() - 1)) // _STEPS)
    found = -(-whole // step) * step
    return found if most is None else int(min(found, most))
