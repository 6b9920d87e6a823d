"""The states of a node, the table of its transitions, and what of it is taken."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import Enum

from ..errors import LocalProtocolError
from ..resources import Resources, Seconds
from .events import InvocationId, NodeName
from .grant import CORE, Amounts, Grant, capacity_amounts, within
from .invocation import Invocation
from .queues import Group, Queue


class NodeState(Enum):
    """How a node stands to the farm."""

    CONNECTING = "connecting"  # its first attempt is under way
    UP = "up"
    DRAINING = "draining"
    LOST = "lost"  # waiting for the next attempt to open it
    SET_ASIDE = "set aside"  # it keeps failing: tried now and then
    GONE = "gone"


class NodeStep(Enum):
    """What can happen to a node."""

    UP = "up"
    FAIL = "fail"
    LOSE = "lose"
    SET_ASIDE = "set aside"
    DRAIN = "drain"
    LEAVE = "leave"


NODE_TRANSITIONS: dict[tuple[NodeState, NodeStep], NodeState] = {
    (NodeState.CONNECTING, NodeStep.UP): NodeState.UP,
    (NodeState.CONNECTING, NodeStep.FAIL): NodeState.LOST,
    (NodeState.CONNECTING, NodeStep.LEAVE): NodeState.GONE,
    (NodeState.UP, NodeStep.LOSE): NodeState.LOST,
    (NodeState.UP, NodeStep.DRAIN): NodeState.DRAINING,
    (NodeState.UP, NodeStep.LEAVE): NodeState.GONE,
    (NodeState.DRAINING, NodeStep.DRAIN): NodeState.DRAINING,
    (NodeState.DRAINING, NodeStep.LEAVE): NodeState.GONE,
    (NodeState.LOST, NodeStep.UP): NodeState.UP,
    (NodeState.LOST, NodeStep.FAIL): NodeState.LOST,
    (NodeState.LOST, NodeStep.SET_ASIDE): NodeState.SET_ASIDE,
    (NodeState.LOST, NodeStep.LEAVE): NodeState.GONE,
    (NodeState.SET_ASIDE, NodeStep.UP): NodeState.UP,
    (NodeState.SET_ASIDE, NodeStep.FAIL): NodeState.SET_ASIDE,
    (NodeState.SET_ASIDE, NodeStep.LEAVE): NodeState.GONE,
}

FAILURES_BEFORE_ASIDE = 5  # in a row
LOSSES_BEFORE_ASIDE = 3
LOSSES_WITHIN = Seconds(600.0)
ASIDE_BACKOFF = Seconds(300.0)

_TURNOVER_WEIGHT = 1 / 8


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it is at this moment, for people and tests."""

    name: NodeName
    state: NodeState
    reason: str
    capacity: Resources | None
    in_use: Resources
    running: int
    queued: int
    reserved: bool  # kept free for an invocation that has waited long
    pressed: bool = False  # short of memory: nothing new starts there


class Node:
    """One node: its state, its free room, what runs there.

    Attributes:
        capacity: What it has, or had when it was last up; ``None`` if it never was.
        cores, memory, disk, gpus: What is free, as in `Grant`.
        running: Who holds an allocation there.
        groups: The groups there, oldest first.
        queued: How many were sent ahead, over all groups.
        environments: Those that something has run in there.
        reserved: The queue whose head it is kept free for.
        blockers: Who ran there when it was reserved: while one of them does, it is not free.
        spare: Seconds until it will be free for that queue's head, as far as is known: shorter
            calls of others may start there meanwhile.
        pressed: Whether it is short of memory, so that nothing new starts there.
        busy: Whether nearly all of its cores are in use, by anyone.
        growth: Bytes that came at once, lately, between two readings of a call.
        available_total: Bytes that our calls could have in all, as far as others leave it.
    """

    __slots__ = (
        "available_total",
        "blockers",
        "busy",
        "capacity",
        "cores",
        "disk",
        "environments",
        "failures",
        "gpus",
        "groups",
        "growth",
        "load",
        "losses",
        "memory",
        "name",
        "pressed",
        "queued",
        "reason",
        "reserved",
        "running",
        "spare",
        "state",
        "total",
        "wall_time",
    )

    def __init__(self, name: NodeName) -> None:
        self.name = name
        self.state = NodeState.CONNECTING
        self.reason = ""
        self.capacity: Resources | None = None
        self.total: Amounts = (0.0, 0.0, 0.0, 0.0)
        self.environments: set[int] = set()
        self.reserved: Queue | None = None
        self.blockers: frozenset[InvocationId] = frozenset()
        self.spare = 0.0
        self.failures = 0
        self.losses: list[Seconds] = []
        self.wall_time = 0.0
        self._empty()

    def _empty(self) -> None:
        self.cores, self.memory, self.disk, self.gpus = self.total
        self.load = 0.0
        self.pressed = False
        self.busy = False
        self.growth = 0.0
        self.available_total = (
            math.inf
        )  # bytes that our calls could have in all, as others leave it
        self.running: dict[InvocationId, Invocation] = {}
        self.groups: dict[Group, None] = {}
        self.queued = 0

    def step(self, step: NodeStep) -> None:
        """Go to the next state.

        Raises:
            LocalProtocolError: If the table has no such transition; names state and step.
        """
        after = NODE_TRANSITIONS.get((self.state, step))
        if after is None:
            raise LocalProtocolError(
                f"node {self.name} is {self.state.value}: {step.value!r} cannot happen to it now"
            )
        self.state = after

    # --- its connection

    def come_up(self, capacity: Resources) -> None:
        """The node answered: it is empty and has this capacity."""
        self.step(NodeStep.UP)
        self.capacity = capacity
        self.total = capacity_amounts(capacity)
        self.failures = 0
        self.reason = ""
        self._empty()

    def fail(self, reason: str) -> Seconds:
        """Note a failed attempt to open it; return the seconds until the next one."""
        self.step(NodeStep.FAIL)
        self.failures += 1
        self.reason = reason
        if self.state is NodeState.LOST and self.failures >= FAILURES_BEFORE_ASIDE:
            self.step(NodeStep.SET_ASIDE)
        if self.state is NodeState.SET_ASIDE:
            self.reason = (
                f"set aside; failed attempts since it was last up: {self.failures}; "
                f"the last: {reason}"
            )
        return self._backoff()

    def lose(self, reason: str, at: Seconds) -> Seconds:
        """Note that it is not up any more; return the seconds until it is tried again."""
        self.step(NodeStep.LOSE)
        self.reason = reason
        self.losses = [time for time in self.losses if at - time <= LOSSES_WITHIN] + [at]
        self._empty()
        if len(self.losses) >= LOSSES_BEFORE_ASIDE:
            self.step(NodeStep.SET_ASIDE)
            self.reason = (
                f"set aside after {len(self.losses)} losses within "
                f"{LOSSES_WITHIN / 60:.0f} minutes; the last: {reason}"
            )
        return self._backoff()

    def check_can_be_lost(self) -> None:
        """Raise what `lose` would raise, before anything is changed.

        Raises:
            LocalProtocolError: If it is not up.
        """
        if (self.state, NodeStep.LOSE) not in NODE_TRANSITIONS:
            raise LocalProtocolError(f"node {self.name} is {self.state.value}: it cannot be lost")

    def begin_to_drain(self) -> None:
        """Let nothing new start there."""
        self.step(NodeStep.DRAIN)

    def leave(self) -> None:
        """Take it out of the farm."""
        self.step(NodeStep.LEAVE)
        self._empty()

    def _backoff(self) -> Seconds:
        if self.state is NodeState.SET_ASIDE:
            delay: float = ASIDE_BACKOFF
        else:
            delay = 2.0 ** max(0, self.failures - 1)
        # Up to an eighth more or less, so that nodes lost together (a switch, a jump
        # host) are not all tried in the same moment. Equal runs give equal delays.
        draw = zlib.crc32(f"{self.name}\0{self.failures}".encode()) / 2**32
        return Seconds(delay * (0.875 + draw / 4))

    # --- its room

    def fits(self, grant: Grant) -> bool:
        """Tell whether there is room for the grant now."""
        return (
            grant.cores <= self.cores
            and grant.memory <= self.memory
            and grant.whole_memory <= self.total[1]
            and grant.disk <= self.disk
            and grant.gpus <= self.gpus
        )

    def could_fit(self, grant: Grant) -> bool:
        """Tell whether there would be room for the grant if nothing ran there."""
        return grant.whole_memory <= self.total[1] and within(grant.amounts, self.total)

    def places(self, grant: Grant) -> int:
        """Return how many such grants fit now; at most a thousand where nothing limits."""
        free = (self.cores, self.memory, self.disk, self.gpus)
        fits = [have / want for want, have in zip(grant.amounts, free, strict=True) if want]
        return int(min([1000.0, *fits]))

    def take(self, grant: Grant) -> None:
        """Take the grant's room. The caller has made sure that it fits."""
        self.cores -= grant.cores
        self.memory -= grant.memory
        self.disk -= grant.disk
        self.gpus -= grant.gpus
        self._set_load()

    def give_back(self, grant: Grant) -> None:
        """Free the grant's room."""
        self.cores += grant.cores
        self.memory += grant.memory
        self.disk += grant.disk
        self.gpus += grant.gpus
        self._set_load()

    def _set_load(self) -> None:
        total = self.total[0]
        self.load = len(self.running) if math.isinf(total) else 1 - self.cores / (total or 1)

    # --- how it moves on

    def ended(self, seconds: float) -> None:
        """Note how long an attempt took there."""
        weight = _TURNOVER_WEIGHT if self.wall_time else 1.0
        self.wall_time += weight * (seconds - self.wall_time)

    @property
    def turnover(self) -> Seconds:
        """Seconds in which one of what runs there is expected to end; 0 if nothing is known."""
        return Seconds(self.wall_time / max(1, len(self.running)))

    @property
    def empty(self) -> bool:
        """Whether nothing runs there and nothing is on its way there."""
        return not self.running and not self.queued

    def view(self) -> NodeView:
        """Return what people are shown."""
        used = [
            0 if math.isinf(total) else total - free
            for total, free in zip(
                self.total, (self.cores, self.memory, self.disk, self.gpus), strict=True
            )
        ]
        return NodeView(
            name=self.name,
            state=self.state,
            reason=self.reason,
            capacity=self.capacity,
            in_use=Resources(
                cores=used[0] / CORE, memory=int(used[1]), disk=int(used[2]), gpus=int(used[3])
            ),
            running=len(self.running),
            queued=self.queued,
            reserved=self.reserved is not None,
            pressed=self.pressed,
        )

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.state.value} {len(self.running)} running>"
