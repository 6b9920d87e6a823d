"""What is to be done: the actions that `FarmState.handle` answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ..resources import Resources, Seconds
from .events import InvocationId, NodeName


class Completion(Enum):
    """How an invocation ended for its caller."""

    RETURNED = "returned"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"
    LOST = "lost"
    UNSCHEDULABLE = "unschedulable"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection to the node, ``delay`` seconds from now."""

    node: NodeName
    delay: Seconds


@dataclass(frozen=True, slots=True)
class DrainedNode:
    """The node is empty and out of the state: close its connection.

    Comes once for each node that leaves, whether it was drained or dropped.
    """

    node: NodeName


@dataclass(frozen=True, slots=True)
class Start:
    """Run an attempt; with ``queued``, in the place of the next of its group that ends."""

    invocation: InvocationId
    attempt: int
    node: NodeName
    allocation: Resources
    group: int
    queued: bool
    reuse: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """Stop an attempt and its tree, or drop it if it has not started."""

    invocation: InvocationId
    attempt: int
    node: NodeName
    evicted: bool


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask for a queued attempt back, if it has not started."""

    invocation: InvocationId
    attempt: int
    node: NodeName


@dataclass(frozen=True, slots=True)
class Resize:
    """The attempt's allocation is now this one: it grew or shrank in place."""

    invocation: InvocationId
    attempt: int
    node: NodeName
    allocation: Resources


@dataclass(frozen=True, slots=True)
class Complete:
    """The invocation is over. Comes exactly once for each; ``reason`` is for people."""

    invocation: InvocationId
    outcome: Completion
    reason: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """A `Tick` is wanted at this time. An earlier time that is still to come stays wanted."""

    at: Seconds


Action: TypeAlias = Connect | DrainedNode | Start | Kill | Recall | Resize | Complete | WakeAt
