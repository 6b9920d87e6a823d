"""Which groups may have more calls sent ahead of their room, and what is asked back."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..resources import Seconds
from .actions import Action, Recall
from .fleet import Fleet
from .invocation import Invocation, State, Step
from .node import NodeState
from .order import Order
from .packing import STALLED_AFTER, ahead_of, held_up, is_short, may_use
from .queues import Group, Queue

_NEVER = Seconds(math.inf)


class Ahead:
    """What has moved in groups of short calls, and what lies on nodes and has not started.

    Args:
        fleet: The nodes.
        order: The queues in which someone waits.
    """

    def __init__(self, fleet: Fleet, order: Order) -> None:
        self._fleet = fleet
        self._order = order
        # Groups, and queues with the number of the last group that there was: all of its
        # groups up to that one. A dictionary, since the order of a set differs between runs.
        self._moved: dict[Group | Queue, int] = {}
        self._sent: dict[Group, None] = {}  # with queued members
        self.recall_at = _NEVER

    @property
    def is_empty(self) -> bool:
        """Whether nothing has moved and nothing lies on nodes."""
        return not self._sent and not self._moved

    # --- what happened

    def moved(self, group: Group) -> None:
        """An attempt of the group has started, ended or was taken over by another one."""
        self._moved[group] = group.id

    def refilled(self, queue: Queue, last: int) -> None:
        """Somebody waits again in a queue.

        Args:
            queue: The queue.
            last: The number of the last group that there is.
        """
        self._moved[queue] = last

    def progressed(self, group: Group, at: Seconds) -> None:
        """A member of the group that was sent ahead has started."""
        group.progressed = at
        self._watch(at)

    def sent(self, group: Group, at: Seconds) -> None:
        """Something is sent ahead of the group's room."""
        if not group.queued:
            self._sent[group] = None
            self.progressed(group, at)

    def nothing_left(self, group: Group) -> None:
        """Nothing that was sent ahead to the group lies there any more."""
        self._sent.pop(group, None)

    def ended(self, group: Group) -> None:
        """The group is no more."""
        self._moved.pop(group, None)

    def _watch(self, at: Seconds) -> None:
        """Look after what was sent ahead, a while from now."""
        if self.recall_at == _NEVER:
            self.recall_at = Seconds(at + STALLED_AFTER)

    # --- what follows

    def lanes(self) -> Iterator[tuple[Group, int]]:
        """Yield groups that have moved, with how many more calls may be sent ahead to each."""
        if not self._moved:
            return
        moved, self._moved = self._moved, {}
        for group in _groups_in(moved):
            if group.queue.waiting and group.node.state is NodeState.UP:
                room = ahead_of(group)
                if room > 0 and not held_up(group, self._order):
                    yield group, min(room, len(group.queue.waiting))

    def recall(self, at: Seconds, actions: list[Action], *, roomier: bool) -> None:
        """Ask back what is stuck behind a long attempt while there is room elsewhere.

        Args:
            at: The time.
            actions: Where to put what is to be done.
            roomier: Whether there is more room than before.
        """
        if at < self.recall_at and not (roomier and self._sent):
            return
        self.recall_at = _NEVER
        stalled = []
        for group in self._sent:
            due = Seconds(group.progressed + STALLED_AFTER)
            if due > at:
                self.recall_at = min(self.recall_at, due)
            elif not group.queue.waiting:
                stalled.append(group)
        if not stalled:
            return
        coming = sum(
            invocation.state is State.RECALLING
            for group in self._sent
            for invocation in group.queued.values()
        )
        for group in stalled:
            queue = group.queue
            grant = queue.grant or group.grant
            room = sum(
                node.places(grant)
                for node in self._fleet.up.values()
                if queue.profile.node in (None, node.name) and may_use(queue, node)
            )
            for invocation in group.queued.values():
                if coming >= room:
                    break
                if invocation.state is State.QUEUED:
                    recall(invocation, group, actions)
                    coming += 1


def recall(invocation: Invocation, group: Group, actions: list[Action]) -> None:
    """Ask for a queued invocation back."""
    invocation.step(Step.RECALL)
    actions.append(Recall(invocation.id, invocation.attempt, group.node.name))


def _groups_in(moved: dict[Group | Queue, int]) -> Iterator[Group]:
    """Return groups by themselves and those of queues, where calls are short enough to matter."""
    seen: set[Group] = set()
    for each, last in moved.items():
        if isinstance(each, Group):
            found = [each]
        elif is_short(each):
            found = [group for group in each.groups.values() if group.id <= last]
        else:
            continue
        for group in found:
            if group not in seen:
                seen.add(group)
                yield group
