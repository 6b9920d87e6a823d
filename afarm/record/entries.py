"""What a record is told: plain values, made on the farm's loop and written by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..resources import Resources, Usage


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One farm, from its opening to its closing."""

    began: float
    host: str
    pid: int
    program: str
    afarm: str
    python: str
    sizer: str


@dataclass(slots=True)
class CallEntry:
    """An invocation that is over.

    Attributes:
        number: In its run.
        category: Whose kind it was.
        code: The digest of its function's code.
        submitted: When, in seconds since the epoch.
        ended: When its caller was told.
        outcome: ``"returned"``, ``"failed"``, ``"cancelled"``, or ``"recalled"`` if its result
            was in the record.
        error: What it failed with.
        attempts: (number, node, allocation, usage, outcome) of each.
        stated: What its user stated of its needs, in words; empty if nothing: all was predicted.
        sized_by: The feature that its memory was predicted from, and its value; ``None`` if from
            none.
    """

    number: int
    category: str
    code: str
    submitted: float
    ended: float
    outcome: str
    error: BaseException | None
    attempts: Sequence[tuple[int, str, Resources, Usage | None, str]]
    stated: str = ""
    sized_by: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class RunningEntry:
    """An attempt that is on a node now."""

    number: int
    category: str
    attempt: int
    node: str
    cores: float | None
    memory: int | None
    since: float


@dataclass(frozen=True, slots=True)
class WaitingEntry:
    """An invocation that has waited long, and why."""

    number: int
    category: str
    since: float
    why: str


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node as it is now; the meanings are those of `NodeInfo`."""

    name: str
    kind: str
    state: str
    reason: str
    capacity: Resources
    running: int
    cores_in_use: float
    memory_in_use: int
    load: float | None
    available: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a farm stands at one moment.

    Attributes:
        at: When, in seconds since the epoch.
        counts: By column of the table ``run``.
        nodes: All of them.
        running: What is on them.
        waiting: Some of what has waited longest.
        keep: Whether it goes into the history, or only tells what is so now.
    """

    at: float
    counts: dict[str, int]
    nodes: Sequence[NodeEntry]
    running: Sequence[RunningEntry]
    keep: bool
    waiting: Sequence[WaitingEntry] = ()


@dataclass(frozen=True, slots=True)
class SizeEntry:
    """What a sizer has learned of a category, as JSON."""

    sizer: str
    category: str
    code: str
    state: str


@dataclass(frozen=True, slots=True)
class ResultEntry:
    """A result that is kept: a pickle and its buffers, here or in a file beside the record."""

    key: str
    category: str
    made: float
    size: int
    lengths: Sequence[int]
    data: bytes | None
    file: str | None
    digest: str
