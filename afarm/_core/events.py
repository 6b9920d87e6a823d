"""What can happen: the events that `FarmState.handle` takes.

Times are seconds of a monotonic clock. An event about an attempt names it by its
number; one that is over, because its node was lost, is told apart by that and ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..resources import Resources, Seconds, Usage
from .request import Profile, Request

__all__ = [
    "AddNode",
    "Cancel",
    "DrainNode",
    "DropNode",
    "Event",
    "Exhausted",
    "Failed",
    "Finished",
    "HandedOn",
    "InvocationId",
    "Killed",
    "LoseNode",
    "NodeFailed",
    "NodeLoad",
    "NodeName",
    "NodeUp",
    "Profile",
    "Reading",
    "Request",
    "Returned",
    "Seconds",
    "Submit",
    "Tick",
]

InvocationId: TypeAlias = int  # above 0
NodeName: TypeAlias = str


# --- from the user


@dataclass(frozen=True, slots=True)
class Submit:
    """A new invocation."""

    invocation: InvocationId
    request: Request
    at: Seconds


@dataclass(frozen=True, slots=True)
class Cancel:
    """The invocation is not wanted any more."""

    invocation: InvocationId
    at: Seconds


@dataclass(frozen=True, slots=True)
class AddNode:
    """The farm is to use one more node."""

    node: NodeName
    at: Seconds


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Nothing new starts on the node; it leaves the farm when it is empty."""

    node: NodeName
    at: Seconds


@dataclass(frozen=True, slots=True)
class DropNode:
    """The node leaves at once, because the user wants it so; what runs there is lost."""

    node: NodeName
    at: Seconds


# --- from the connections


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A connection is open and the node has said what it has."""

    node: NodeName
    capacity: Resources
    at: Seconds


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """An attempt to open the node failed."""

    node: NodeName
    reason: str
    at: Seconds


@dataclass(frozen=True, slots=True)
class LoseNode:
    """A node that was up is not any more; ``memory``: it ran out of memory."""

    node: NodeName
    reason: str
    at: Seconds
    memory: bool = False


# --- from the agents; `next` took over the allocation (0: none did)


@dataclass(frozen=True, slots=True)
class Finished:
    """The attempt returned a result."""

    invocation: InvocationId
    attempt: int
    usage: Usage
    next: InvocationId
    at: Seconds


@dataclass(frozen=True, slots=True)
class Failed:
    """It raised, crashed or could not be loaded: final, unless ``retry`` and retries are left."""

    invocation: InvocationId
    attempt: int
    usage: Usage
    next: InvocationId
    retry: bool
    at: Seconds


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The monitor stopped an attempt that went over its allocation of ``resource``."""

    invocation: InvocationId
    attempt: int
    resource: str
    usage: Usage
    next: InvocationId
    at: Seconds


@dataclass(frozen=True, slots=True)
class Killed:
    """The attempt was stopped as the farm asked, and its tree is gone."""

    invocation: InvocationId
    attempt: int
    usage: Usage
    next: InvocationId
    at: Seconds


@dataclass(frozen=True, slots=True)
class Returned:
    """A queued attempt did not start, and will not."""

    invocation: InvocationId
    attempt: int
    at: Seconds


@dataclass(frozen=True, slots=True)
class HandedOn:
    """``next`` took over the attempt's allocation, though its end is still on its way."""

    invocation: InvocationId
    attempt: int
    next: InvocationId
    at: Seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """What a running attempt uses so far; told at once when it outgrows its allocation."""

    invocation: InvocationId
    attempt: int
    usage: Usage
    at: Seconds


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """How a node stands.

    Attributes:
        available: Bytes of memory that a new process could have.
        pressure: The share of time that something waited for memory (PSI), or -1: unknown.
        cores: How many are in use, by anyone.
    """

    node: NodeName
    available: int
    pressure: float
    at: Seconds
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; the answer to `WakeAt`."""

    at: Seconds


Event: TypeAlias = (
    Submit
    | Cancel
    | AddNode
    | DrainNode
    | DropNode
    | NodeUp
    | NodeFailed
    | LoseNode
    | Finished
    | Failed
    | Exhausted
    | Killed
    | Returned
    | HandedOn
    | Reading
    | NodeLoad
    | Tick
)
