"""Where invocations stand in line: a `Queue` in the farm, a `Group` on a node."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..resources import Resources, Seconds
from .category import Category
from .events import InvocationId
from .grant import Grant
from .invocation import Invocation
from .request import Profile

if TYPE_CHECKING:
    from .node import Node


@dataclass(frozen=True, slots=True)
class Retry:
    """Why an invocation needs more than others: the allocation that did not do."""

    tries: int
    previous: Resources
    resource: str  # which ran out
    last: bool  # no retry is left after this one
    reserved: bool = False  # it was evicted so often that all of it is set aside


# The profile, what makes calls similar to the sizer, and why they are tried again.
QueueKey = tuple[Profile, Hashable, Retry | None]
Rank = tuple[float, bool, float, float, int]


class Queue:
    """Invocations that wait for the same allocation, first in, first out.

    Attributes:
        waiting: Who waits, in order.
        grant: What each of them gets; ``None`` while no node is known that could hold it.
        passed_since: Since when its head has waited without one of the queue starting.
        aged: Whether that has been so long that the queue goes before others.
        reserved: The node kept free for its head.
        share: The dominant share of the largest node that each takes.
        rank: Its place among the queues, lowest first; see `packing.rank`.
    """

    __slots__ = (
        "aged",
        "category",
        "charged",
        "features",
        "fleet_version",
        "grant",
        "groups",
        "key",
        "largest",
        "passed_since",
        "profile",
        "rank",
        "ranked",
        "reserved",
        "retry",
        "serial",
        "share",
        "sized",
        "waiting",
        "watched",
    )

    def __init__(
        self, key: QueueKey, category: Category, features: Mapping[str, float], serial: int
    ) -> None:
        self.key = key
        self.profile, _, self.retry = key
        self.category = category
        self.features = features
        self.serial = serial
        self.waiting: OrderedDict[InvocationId, Invocation] = OrderedDict()
        self.groups: dict[tuple[Node, Grant, bool], Group] = {}
        self.grant: Grant | None = None
        self.charged = 1.0  # the part of its memory that a node is charged with
        self.share = 0.0
        self.sized: Resources | None = None  # what the sizer said for `grant`
        self.largest: Resources | None = None
        self.fleet_version = -1  # of which `largest` is
        self.passed_since = Seconds(0.0)
        self.aged = False
        self.watched = False  # whether a time is noted at which it may have aged
        self.reserved: Node | None = None
        self.rank: Rank = (0.0, True, 0.0, 0.0, serial)
        self.ranked = False  # whether it stands in the order of the queues

    @property
    def reuse(self) -> bool:
        """Whether what starts now is to run in a process that serves many."""
        isolation = self.profile.isolation
        return self.category.reuse if isolation == "auto" else isolation == "reuse"

    def __repr__(self) -> str:
        return f"<Queue {self.profile.category} {len(self.waiting)} waiting>"


class Group:
    """Attempts on one node that may inherit each other's allocations.

    Attributes:
        running: How many hold an allocation; as many allocations belong to the group.
        queued: Those sent ahead, in the order they were sent.
        progressed: When a queued one last took over, or the first was queued.
        shrunk: How many of the running ones hold less than the grant: nobody is sent ahead to
            inherit from them.
    """

    __slots__ = (
        "grant", "id", "node", "progressed", "queue", "queued", "reuse", "running", "shrunk",
    )  # fmt: skip

    def __init__(self, id: int, node: Node, queue: Queue, grant: Grant, reuse: bool) -> None:
        self.id = id
        self.node = node
        self.queue = queue
        self.grant = grant
        self.reuse = reuse
        self.running = 0
        self.queued: dict[InvocationId, Invocation] = {}
        self.progressed = Seconds(0.0)
        self.shrunk = 0

    @property
    def current(self) -> bool:
        """Whether the next ones of its queue would get the same allocation and process."""
        return self.grant is self.queue.grant and self.reuse == self.queue.reuse

    def __repr__(self) -> str:
        return f"<Group {self.id} {self.running} running {len(self.queued)} queued>"
