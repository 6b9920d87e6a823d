"""The states of an invocation, and the table of its transitions."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from ..resources import Resources, Seconds
from .events import InvocationId
from .request import Request

if TYPE_CHECKING:
    from .queues import Group, Queue, Retry


class State(IntEnum):
    """Where an invocation is. An `IntEnum`, since it is hashed several times for each call."""

    WAITING = 0
    RUNNING = 1  # it holds an allocation
    QUEUED = 2  # sent ahead, behind the running ones of its group; holds nothing
    RECALLING = 3  # queued, and asked back
    DROPPING = 4  # queued, and its kill is on the way
    KILLING = 5  # its kill is on the way; it holds its allocation until its tree is gone
    GONE = 6


class Step(IntEnum):
    """What can happen to an invocation."""

    START = 0
    QUEUE = 1
    TAKE_OVER = 2  # it started in the place of another one of its group
    RECALL = 3
    CANCEL = 4
    AGAIN = 5  # the attempt is over and another one is to come
    COMPLETE = 6


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.WAITING, Step.START): State.RUNNING,
    (State.WAITING, Step.QUEUE): State.QUEUED,
    (State.WAITING, Step.COMPLETE): State.GONE,
    (State.RUNNING, Step.CANCEL): State.KILLING,
    (State.RUNNING, Step.AGAIN): State.WAITING,
    (State.RUNNING, Step.COMPLETE): State.GONE,
    (State.QUEUED, Step.TAKE_OVER): State.RUNNING,
    (State.QUEUED, Step.RECALL): State.RECALLING,
    (State.QUEUED, Step.CANCEL): State.DROPPING,
    (State.QUEUED, Step.AGAIN): State.WAITING,
    (State.QUEUED, Step.COMPLETE): State.GONE,
    (State.RECALLING, Step.TAKE_OVER): State.RUNNING,
    (State.RECALLING, Step.CANCEL): State.DROPPING,
    (State.RECALLING, Step.AGAIN): State.WAITING,
    (State.RECALLING, Step.COMPLETE): State.GONE,
    (State.DROPPING, Step.TAKE_OVER): State.KILLING,
    (State.DROPPING, Step.COMPLETE): State.GONE,
    (State.KILLING, Step.COMPLETE): State.GONE,
}

_NOTHING = Resources()
_NOT_READ = (0.0, 0.0)

HOLDING = frozenset({State.RUNNING, State.KILLING})


class Invocation:
    """One invocation from its submission to its end. Small: a hundred thousand may wait."""

    __slots__ = (
        "attempt",
        "cores_grown",
        "cores_read",
        "evicted_from",
        "evicting",
        "evictions",
        "group",
        "grown",
        "handed_on",
        "id",
        "memory_losses",
        "queue",
        "request",
        "retries_used",
        "retry",
        "started",
        "started_reading",
        "state",
        "submitted",
        "told",
        "tries",
        "used",
    )

    def __init__(self, id: InvocationId, request: Request, at: Seconds) -> None:
        self.id = id
        self.request = request
        self.submitted = at
        self.state = State.WAITING
        self.attempt = 0  # how often it was sent to a node, queued or not
        self.tries = 0  # attempts whose allocation did not do
        self.retries_used = 0
        self.retry: Retry | None = None  # what it ran out of, if it did
        self.memory_losses = 0  # nodes that ran out of memory while it ran there
        self.started = at
        self.queue: Queue | None = None  # where it waits
        self.group: Group | None = None  # where it was sent
        self.handed_on = False  # whether another one has its allocation by now
        # Of a running attempt, see `elastic`: bytes it is charged with beyond the grant of its
        # group; bytes it was seen to use; bytes that its node knows as its allocation, if that has
        # changed; whether its node was asked to stop it to make room, and how often in all.
        self.grown = 0
        self.cores_grown = 0  # the same of cores, in millionths
        self.cores_read = _NOT_READ  # seconds of wall time and of CPU, at the last reading
        self.used = 0
        self.told = 0
        self.started_reading = False
        self.evicting = False
        self.evictions = 0
        self.evicted_from = _NOTHING  # the allocation of the attempt that ended last

    def charge(self, group: Group) -> int:
        """Return the bytes that its node is charged with for it."""
        return int(group.grant.memory) + self.grown

    def held(self, group: Group) -> int:
        """Return the bytes of memory that are its allocation by now."""
        return self.told or group.grant.allocation.memory or 0

    def forget_attempt(self) -> None:
        """Forget what was read of an attempt that is over."""
        self.grown = self.cores_grown = self.used = self.told = 0
        self.cores_read = _NOT_READ
        self.started_reading = self.evicting = False

    @property
    def retries_left(self) -> int:
        """How often it may still be tried again after a fault that is not its own."""
        return self.request.retries - self.retries_used

    def step(self, step: Step) -> None:
        """Go to the next state.

        Raises:
            LocalProtocolError: If the table has no such transition; names state and step.
        """
        after = TRANSITIONS.get((self.state, step))
        if after is None:
            raise LocalProtocolError(
                f"invocation {self.id} is {self.state.name.lower()}: "
                f"{step.name.lower().replace('_', ' ')} cannot happen to it now"
            )
        self.state = after

    def __repr__(self) -> str:
        return f"<Invocation {self.id} {self.state.name.lower()} attempt {self.attempt}>"
