"""Who has been passed over for long, and the nodes that are kept free for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from operator import attrgetter

from ..resources import Seconds
from .fleet import Fleet
from .grant import Amounts
from .node import Node, NodeState
from .packing import RESERVE_AFTER, RESERVE_EVERY, look_ahead, patience, reserve, soonest
from .queues import Queue

_by_rank = attrgetter("rank")
_NEVER = Seconds(math.inf)

# Each reserved node runs partly empty for a while.
_MOST_RESERVATIONS = 4
_NODES_FOR_EACH_RESERVATION = 4


class Ageing:
    """Watches how long queues have been passed over, and reserves nodes for those that were.

    Args:
        fleet: The nodes.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._due: list[tuple[Seconds, int, Queue]] = []  # a heap: when to look at whom
        self._aged: dict[Queue, None] = {}  # not a set, whose order differs between runs
        self._reservations = 0
        self._reserve_at = _NEVER
        self._reserved_at = Seconds(-math.inf)

    @property
    def is_empty(self) -> bool:
        """Whether nobody was passed over and nothing is reserved."""
        return not self._aged and not self._reservations

    def wakes_at(self, *, waiting: bool) -> Seconds:
        """Return when time alone changes something here.

        Args:
            waiting: Whether any queue has its place in the order.
        """
        due = self._due[0][0] if waiting and self._due else _NEVER
        return min(due, self._reserve_at)

    # --- what happened to a queue

    def watch(self, queue: Queue) -> None:
        """Look after a queue from the time on since when it is passed over."""
        self._watch_until(queue, Seconds(queue.passed_since + RESERVE_AFTER))

    def watch_again(self, queues: Iterable[Queue]) -> None:
        """Look after queues also that no node could have held before: there are others now."""
        for queue in queues:
            if not queue.aged:
                self.watch(queue)
        if self._aged:
            self._reserve_soon()

    def served(self, queue: Queue) -> bool:
        """Note that a queue's head has started; return whether the queue had aged."""
        if not queue.aged:
            return False
        queue.aged = False
        del self._aged[queue]
        self.watch(queue)
        return True

    def drop(self, queue: Queue) -> None:
        """Forget a queue in which nobody waits any more."""
        queue.aged = False
        self._aged.pop(queue, None)
        if not self._aged:
            self._reserve_at = _NEVER

    def drop_all(self) -> None:
        """Forget when to look at whom: nobody waits at all."""
        for _, _, queue in self._due:
            queue.watched = False
        self._due.clear()

    def _watch_until(self, queue: Queue, due: Seconds) -> None:
        if not queue.watched and due != _NEVER:
            queue.watched = True
            heappush(self._due, (due, queue.serial, queue))

    # --- what time changes

    def now_aged(self, at: Seconds) -> Iterator[Queue]:
        """Yield the queues that have been passed over for long since the last look."""
        patiences: dict[tuple[Amounts | None, str | None], Seconds] = {}
        while self._due and self._due[0][0] <= at:
            _, _, queue = heappop(self._due)
            queue.watched = False
            if not queue.waiting or queue.aged:
                continue
            due = Seconds(queue.passed_since + RESERVE_AFTER)
            if due <= at:
                key = (None if queue.grant is None else queue.grant.amounts, queue.profile.node)
                if key not in patiences:
                    patiences[key] = patience(self._turnover_for(queue))
                due = Seconds(queue.passed_since + patiences[key])
            if due > at:
                self._watch_until(queue, due)
            else:
                queue.aged = True
                self._aged[queue] = None
                self._reserve_soon()
                yield queue

    def _turnover_for(self, queue: Queue) -> float:
        """Return the shortest turnover, in seconds, of the nodes that could hold its head."""
        grant = queue.grant
        if grant is None:
            return math.inf
        if queue.profile.node is None:
            return self._fleet.rooms.least_turnover(grant)
        pinned = self._fleet.up.get(queue.profile.node)
        return math.inf if pinned is None or not pinned.could_fit(grant) else pinned.turnover

    # --- reservations

    def look_ahead(self, at: Seconds) -> None:
        """Find out anew how long it takes until each reserved node is free."""
        if self._reservations:
            for queue in self._aged:
                if queue.reserved is not None:
                    look_ahead(queue.reserved, at)

    def release(self, node: Node) -> bool:
        """End the node's reservation; return whether it had one."""
        queue = node.reserved
        if queue is None:
            return False
        node.reserved = queue.reserved = None
        self._reservations -= 1
        if self._aged:
            self._reserve_soon()  # another queue may want one
        return True

    def _reserve_soon(self) -> None:
        """Somebody may need a node kept free; see to it, not more often than now and then."""
        self._reserve_at = Seconds(self._reserved_at + RESERVE_EVERY)

    def reserve(self, at: Seconds) -> None:
        """Keep nodes free, if it is time, for those who were passed over and fit nowhere."""
        if at < self._reserve_at:
            return
        self._reserve_at, self._reserved_at = _NEVER, at
        up = len(self._fleet.up)
        most = min(_MOST_RESERVATIONS, max(1, up // _NODES_FOR_EACH_RESERVATION))
        if self._reservations >= most:
            return
        for queue in sorted(self._aged, key=_by_rank):
            if self._reservations >= most:
                return
            if queue.reserved is None:
                node = soonest(queue, self._nodes_for(queue), at)
                if node is not None:
                    reserve(node, queue)
                    self._reservations += 1

    def _nodes_for(self, queue: Queue) -> Iterable[Node]:
        if queue.profile.node is None:
            return self._fleet.up.values()
        pinned = self._fleet.up.get(queue.profile.node)
        return () if pinned is None else (pinned,)


def still_wants(queue: Queue, node: Node) -> bool:
    """Tell whether a node that is kept free for a queue could still serve it."""
    return queue.grant is not None and node.state is NodeState.UP and node.could_fit(queue.grant)
