"""What one category has shown: its samples, its models and the feature that tells the most."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...resources import Usage
from .cost import Choice, Judgement
from .models import FEATURELESS, MODELS, MOST, Median, Model
from .telling import Telling

# Calls that models and margins are judged by, and samples kept for a feature that turns out
# to tell more than the one before.
_JUDGED = 48
_KEPT = 96

# A stopped call needed more than was seen of it; how much more, nobody knows.
_CENSORED = math.log(1.4)

# Seconds from which on the CPU time of a call tells how many cores it keeps busy.
_TELLS_CORES = 0.5

# Seconds that a call weighs at least.
_SHORTEST = 1e-3

# Calls that take less (s) are not all learned from, once so many have been.
_VERY_SHORT = 0.01
_ENOUGH = 200
_ONE_IN = 8

# Calls after which features are looked at again where none has told anything.
_LOOK_AGAIN = 16

# Samples after which models are compared again, at the latest: it takes 0.1 ms.
_MOST_UNCHOSEN = 16

# What a process may take on top without any change in what it does: an allocator's arenas, a
# thread's stack (bytes).
SLACK = 8 << 20

# Weights of the running means of cores and disk.
_WEIGHT = 1 / 16

# The share of what it needs that a call costs which outgrew what it was given, where it grows in
# place: now and then there is no room.
GROWTH_COST = 0.25


class Sample(NamedTuple):
    """What one call used, and what was known of it beforehand."""

    memory: float
    cores: float
    wall_time: float
    disk: float
    features: Mapping[str, float]


class History:
    """The samples of one category, and what follows from them.

    Attributes:
        count: How many calls have finished.
        fair: Bytes of a node for each of its cores.
        cores: Cores that a call keeps busy, on average.
        disk: Bytes that a call leaves in its directory at most, fading.
        choice: Which model is believed, and how far above what it says.
        feature: The name of the one that tells the most, if one does.
    """

    def __init__(self, *, elastic: bool) -> None:
        self.count = 0
        self.fair = 0.0
        self.cores = 0.0
        self.disk = 0.0
        self.choice = Choice(0, math.log(2.0))
        self._elastic = elastic
        self._models: list[Model] = [make() for make in MODELS]
        self._wall_time = Median()
        self._judged = Judgement(len(MODELS), _JUDGED)
        self._kept: deque[Sample] = deque(maxlen=_KEPT)
        self._telling = Telling()
        self.feature: str | None = None
        self._learned = 0
        self._choose_at = 1
        self._granted: float | None = None  # to a call without features

    # --- learning

    def has_seen_enough(self, usage: Usage, features: Mapping[str, float]) -> bool:
        """Tell whether a call says nothing new; counts it.

        Of very short calls, of which hundreds have been seen, seven in eight are not learned
        from unless they needed more than is granted: learning from one takes 20 us.
        """
        if (
            usage.wall_time > _VERY_SHORT
            or self.count < _ENOUGH
            or self.count % _ONE_IN == 0
            or usage.memory > self._would_grant(features)
        ):
            return False
        self.count += 1
        return True

    def _would_grant(self, features: Mapping[str, float]) -> float:
        if self.feature is None or not features:
            return self._granted or 0.0
        return self.size(features) or 0.0

    @property
    def wants_features(self) -> bool:
        """Whether it is worth finding out features of the next calls.

        Where none of them has told anything about hundreds of calls, one call in some is looked
        at: that may change.
        """
        return self.feature is not None or self.count < _ENOUGH or self.count % _LOOK_AGAIN == 0

    @property
    def follows_feature(self) -> bool:
        """Whether the model that is believed looks at the feature."""
        return self.choice.model >= FEATURELESS

    def learn(self, sample: Sample) -> None:
        """Take what a finished call used."""
        self.count += 1
        self._learned += 1
        y = self._take(sample, judged=self.count > 1)
        self._wall_time.learn(None, sample.wall_time)
        weight = max(_WEIGHT, 1 / self.count)
        self.cores += weight * (sample.cores - self.cores)
        self.disk = max(sample.disk, self.disk * (1 - _WEIGHT / 4))
        self._kept.append(sample)
        self._telling.learn(sample.features, y)
        if self._learned >= self._choose_at:
            self._choose()

    def _take(self, sample: Sample, *, judged: bool) -> float:
        """Let the models say what a call needed, and tell them; return the logarithm of it."""
        y = math.log(sample.memory) if sample.memory > 1 else 0.0
        x = self._x(sample.features)
        if judged:
            seconds = sample.wall_time if sample.wall_time > _SHORTEST else _SHORTEST
            self._judged.add(y, seconds, [model.predict(x) for model in self._models])
        for model in self._models:
            model.learn(x, y)
        return y

    def learn_stopped(self, memory: float, features: Mapping[str, float]) -> None:
        """Take a call that was stopped: it needed more than this."""
        x = self._x(features)
        y = math.log(max(1.0, memory)) + _CENSORED
        said = [model.predict(x) for model in self._models]
        if said[0] is None:
            self._models[0].learn(x, y)
            return
        self._judged.add(y, self.wall_time or 1.0, said)
        self._choose()

    def _choose(self) -> None:
        # Each time while little is known, then as often as it may change anything.
        self._choose_at = self._learned + 1 + min(_MOST_UNCHOSEN, self._learned // 8)
        self._choose_feature()
        if self._judged:
            growth = GROWTH_COST if self._elastic else None
            fair = self.fair * max(self.cores, 0.25)
            self._granted = None
            self.choice = self._judged.choose(growth=growth, fair=fair)

    def _choose_feature(self) -> None:
        """Use the feature that explains the most, if one does; learn anew with another one."""
        best = self._telling.better_than(self.feature)
        if best is None or not self._differ():
            return
        self.feature = best
        self._models = [make() for make in MODELS]
        self._judged.clear()
        for number, sample in enumerate(self._kept):
            self._take(sample, judged=number > 0)

    # --- predicting

    def _x(self, features: Mapping[str, float]) -> float | None:
        value = features.get(self.feature, 0.0) if self.feature is not None else 0.0
        return math.log(value) if value > 0 else None

    def _differ(self) -> bool:
        """Tell whether calls differ by so much that it matters which is which."""
        needs = [sample.memory for sample in self._kept]
        return max(needs) - min(needs) > SLACK

    @property
    def wall_time(self) -> float | None:
        """The median of the last wall times, in seconds."""
        return self._wall_time.predict(None)

    def expected(self, features: Mapping[str, float]) -> float | None:
        """Return the logarithm of the memory that is expected, without a margin."""
        x = self._x(features)
        said = self._models[self.choice.model].predict(x)
        return self._models[0].predict(x) if said is None else said

    def size(self, features: Mapping[str, float]) -> float | None:
        """Return the bytes to grant a first attempt; ``None`` before anything is known."""
        y = self.expected(features)
        if y is None:
            return None
        size = math.exp(min(y + self.choice.margin, MOST))
        if self.feature is None or not features:
            self._granted = size
        return size

    def size_beyond(self, features: Mapping[str, float], memory: float) -> float | None:
        """Return the bytes to grant a call that needs more than ``memory``.

        What held most of those that needed more than predicted by as much; ``None`` where none
        did.
        """
        y = self.expected(features)
        if y is None:
            return None
        over = math.log(max(1.0, memory)) - y
        margin = self._judged.margin_beyond(self.choice.model, over)
        return None if margin is None else math.exp(min(y + margin, MOST)) * 1.05

    # --- what outlives a run

    def dump(self) -> list[list[object]]:
        """Return the samples that are kept, oldest first."""
        return [
            [
                round(s.memory),
                round(s.cores, 3),
                round(s.wall_time, 3),
                round(s.disk),
                {**s.features},
            ]
            for s in self._kept
        ]


def sample_of(usage: Usage, features: Mapping[str, float]) -> Sample:
    """Return what a finished attempt shows.

    CPU time begins before wall time, while the call is unpickled and its modules are imported:
    of a call that is shorter than that it says nothing about threads.
    """
    cores = usage.cores if usage.wall_time >= _TELLS_CORES else min(1.0, usage.cores)
    return Sample(usage.memory, cores, usage.wall_time, usage.disk, features)


def samples_in(state: object) -> Iterator[Sample]:
    """Yield the samples of what `History.dump` returned; what cannot be read is left out."""
    if not isinstance(state, list):
        return
    for each in state:
        match each:
            case [int(memory), int() | float() as cores, int() | float() as wall_time, int(disk),
                  dict() as features]:  # fmt: skip
                if min(memory, cores, wall_time, disk) >= 0:
                    numbers = {
                        str(name): float(value)
                        for name, value in features.items()
                        if isinstance(value, (int, float))
                    }
                    yield Sample(memory, cores, wall_time, disk, numbers)
