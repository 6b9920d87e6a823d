"""What a report shows: plain values, read from a record and summed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run: the columns of ``run`` that people read."""

    run: int
    began: float
    ended: float
    closed: bool
    host: str
    program: str
    afarm: str
    python: str
    sizer: str
    waiting: int
    running: int
    returned: int
    failed: int
    cancelled: int
    recalled: int
    evictions: int
    unrecorded: int

    @property
    def seconds(self) -> float:
        """From opening to closing, or to the last sign of life."""
        return max(0.0, self.ended - self.began)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """How full a node was over time: shares of its capacity, 0 to 1 and, by mistake, more."""

    name: str
    kind: str
    cores: float
    memory: int
    attempts: int
    cores_allocated: Sequence[float]
    cores_used: Sequence[float]
    memory_allocated: Sequence[float]
    memory_used: Sequence[float]


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What of the arguments sizes of a category were predicted from.

    Attributes:
        name: As in ``"size(table)"``.
        calls: How many were sized by it.
        least, most: Of its values.
    """

    name: str
    calls: int
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """What the calls of one category used.

    Attributes:
        name: Of the category.
        outcomes: Calls by outcome.
        attempts: How many were measured.
        wall_total: Seconds of all attempts.
        wall_median: Seconds of one.
        wall_max: Seconds of the longest.
        cpu: Seconds of CPU of all.
        memory_median: Peak bytes of one.
        memory_max: The largest peak.
        allocated_median: Bytes allocated to one; ``None`` if none had a limit.
        efficiency: Memory used over allocated, weighted by time.
        histogram: How many attempts had their peak in each equal step from 0 to ``scale``.
        scale: Bytes at the end of the histogram.
        sized_by: What of the arguments the memory of most was predicted from, if of any.
    """

    name: str
    outcomes: Counter[str]
    attempts: int
    wall_total: float
    wall_median: float
    wall_max: float
    cpu: float
    memory_median: float
    memory_max: float
    allocated_median: float | None
    efficiency: float | None
    histogram: Sequence[int]
    scale: float
    sized_by: FeatureRow | None

    @property
    def calls(self) -> int:
        """All calls that are over."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Calls that failed in one way."""

    category: str
    error: str
    calls: int
    first: int


@dataclass(frozen=True, slots=True)
class LossRow:
    """Attempts that did not return, of one outcome on one node."""

    outcome: str
    node: str
    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report shows."""

    run: RunFacts
    runs: int
    nodes: Sequence[NodeLine]
    categories: Sequence[CategoryRow]
    failures: Sequence[FailureRow]
    losses: Sequence[LossRow]
    cpu: float
    lost_time: float
    efficiency: float | None
    attempts: int
