"""What invocations of one category have shown so far."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..resources import Seconds

if TYPE_CHECKING:
    from .queues import Queue

# Wall times are averaged over the first ones, then exponentially: recent calls count
# more, and eight of them are enough to follow a change.
_WEIGHT = 1 / 8

# A process is used again once starting one would dominate: a fork from a template
# with numpy and pandas takes 4.3 ms, and five times that still wastes a fifth. The way
# back is twice as long, so that a category near the line does not change to and fro.
REUSE_BELOW = Seconds(0.020)
REUSE_UNTIL = Seconds(0.040)
_REUSE_AFTER = 4

# Where features, or what is stated for each call, part a category into many queues, so many of them
# are sized for each call that has returned: then some calls change little. The first calls of a
# category change much, and a few queues without features are sized at once. Sizing a queue takes
# 10 us: of thousands all are sized only when twice as many calls have returned as the last time.
_SIZED_FOR_EACH = 2
_HEEDED_AT_ONCE = 32
_FEW_QUEUES = 32
_MANY_QUEUES = 256


class Category:
    """Counts and wall times; what it needs of other resources is the sizer's to know."""

    __slots__ = (
        "exhausted", "failed", "finished", "name", "queues", "reuse", "telling", "unsized",
        "wall_time",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished = 0
        self.failed = 0
        self.exhausted = 0
        self.wall_time: Seconds | None = None  # expected; None before the first has finished
        self.reuse = False  # whether its calls are so short that processes are used again
        self.telling: Hashable = None  # what the sizer told its calls apart by, when last asked
        self.unsized = 0  # what was observed since its queues were sized
        # In the order they came to be, so that equal runs decide equally.
        self.queues: dict[Queue, None] = {}

    def finish(self, wall_time: float) -> None:
        """Take the wall time of one that returned."""
        self.finished += 1
        if self.wall_time is None:
            self.wall_time = Seconds(wall_time)
        else:
            weight = max(_WEIGHT, 1 / self.finished)
            self.wall_time = Seconds(self.wall_time + weight * (wall_time - self.wall_time))
        if self.reuse:
            self.reuse = self.wall_time < REUSE_UNTIL
        elif self.finished >= _REUSE_AFTER:
            self.reuse = self.wall_time < REUSE_BELOW

    def is_to_be_sized(self, *, surprised: bool) -> bool:
        """Tell, when an attempt has ended, whether it is time to size all of its queues.

        Args:
            surprised: Whether it needed more than it had: that is heeded at once.
        """
        self.unsized += 1
        queues = len(self.queues)
        if _SIZED_FOR_EACH * self.unsized >= queues:
            return True
        if queues > _MANY_QUEUES:
            return 2 * self.unsized >= self.finished
        few = self.telling is None and queues <= _FEW_QUEUES
        return few or surprised or self.finished < _HEEDED_AT_ONCE

    def __repr__(self) -> str:
        return f"<Category {self.name} {self.finished} finished>"
