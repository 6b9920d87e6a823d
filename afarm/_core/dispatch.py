"""Who starts where, once for each batch of events: the packing pass.

What makes it cheap: when a pass is over, nothing that waits fits anywhere. So the next
one looks only at queues that are `fresh` (new, or wanting something else than before)
on all nodes, and at all queues, best first, on the nodes where room has appeared.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from operator import attrgetter, itemgetter

from ..resources import Seconds
from .actions import Action, Start, WakeAt
from .ageing import Ageing, still_wants
from .ahead import Ahead
from .allocation import size_queue
from .category import Category
from .elastic import Elastic
from .events import InvocationId
from .fleet import Fleet
from .grant import Grant
from .invocation import Invocation, Step
from .node import Node, NodeState
from .order import Order
from .packing import (
    choices,
    may_go_before,
    rank,
    score,
)
from .queues import Group, Queue, QueueKey, Rank, Retry
from .request import Request
from .rooms import FEW
from .sizers.base import Sizer

_by_rank = attrgetter("rank")
_NEVER = Seconds(math.inf)
_TICK_EARLY = 0.001  # timers have a resolution

# Empty queues that are kept for who comes next; some 500 bytes each.
IDLE_QUEUES = 64

# So many queues in vain are asked for calls that are short enough for a node that is kept free.
_ASKED_TO_FILL_IN = 32


def _most_free(nodes: Iterable[Node]) -> tuple[float, float]:
    """Return the most cores and the most memory that are free on one of the nodes."""
    cores = memory = -math.inf
    for node in nodes:
        cores, memory = max(cores, node.cores), max(memory, node.memory)
    return cores, memory


def _similar_for(sizer: Sizer) -> Callable[[Request], Hashable]:
    """Return what tells whether two calls are sized alike, and so may wait in one queue."""
    similar = getattr(sizer, "similar", None)
    if similar is not None:
        return lambda request: (
            similar(request.category, request.features) if request.features else None
        )
    if getattr(sizer, "uses_features", True):
        return attrgetter("features_key")
    return lambda request: None


class Dispatcher:
    """The queues, their order, and what has changed since the last pass."""

    def __init__(self, fleet: Fleet, sizer: Sizer, elastic: Elastic) -> None:
        self._fleet = fleet
        self._sizer = sizer
        self._elastic = elastic
        self._similar = _similar_for(sizer)
        self._telling: Callable[[str], Hashable] | None = getattr(sizer, "telling", None)
        self._queues: dict[QueueKey, Queue] = {}
        self._order = Order()  # those in which someone waits
        self._groups_made = 0
        self._activations = 0
        self._version = -1
        self._ageing = Ageing(fleet)
        self._ahead = Ahead(fleet, self._order)
        self._least = (math.inf, math.inf)  # no one who waits wants less cores or memory
        # What has changed; dictionaries, since the order of a set differs between runs.
        self._fresh: dict[Queue, None] = {}
        # Empty queues, with their sizes: calls that come one at a time need not be sized anew.
        self._idle: dict[QueueKey, Queue] = {}
        self._roomier: dict[Node, None] = {}
        self._learned: dict[Category, None] = {}
        self._wake_at = _NEVER  # the tick that was asked for

    # --- what happened

    def enter(
        self,
        invocation: Invocation,
        category: Category,
        retry: Retry | None,
        at: Seconds,
        *,
        first: bool = False,
    ) -> None:
        """Let an invocation wait, at the end of its queue or as the first of it."""
        request = invocation.request
        queue = self._queue(request, category, retry)
        invocation.queue = queue
        if not queue.waiting:
            self._activate(queue, at)
        queue.waiting[invocation.id] = invocation
        if first:
            queue.waiting.move_to_end(invocation.id, last=False)

    def withdraw(self, invocation: Invocation) -> None:
        """Take a waiting invocation out of its queue."""
        queue = invocation.queue
        assert queue is not None
        del queue.waiting[invocation.id]
        invocation.queue = None
        if not queue.waiting:
            self._deactivate(queue)

    def learned(self, category: Category, *, surprised: bool) -> None:
        """What is expected of a category has changed.

        Args:
            category: Of which an attempt has ended.
            surprised: Whether it needed more than it had: that is heeded at once.
        """
        if category.is_to_be_sized(surprised=surprised) or (
            self._telling is not None and self._telling(category.name) != category.telling
        ):
            category.unsized = 0
            self._learned[category] = None

    def moved(self, group: Group) -> None:
        """An attempt of the group ended or was taken over by another one."""
        self._ahead.moved(group)

    def progressed(self, group: Group, at: Seconds) -> None:
        """A queued member of the group has started."""
        self._ahead.progressed(group, at)

    def freed(self, node: Node) -> None:
        """There is more room on the node than before."""
        self._roomier[node] = None
        self._fleet.rooms.changed(node)

    def ended(self, group: Group) -> None:
        """Forget a group that has no members left, and its queue if that was all of it."""
        if not group.queued:
            self._ahead.nothing_left(group)
        if not group.running and not group.queued:
            queue = group.queue
            queue.groups.pop((group.node, group.grant, group.reuse), None)
            group.node.groups.pop(group, None)
            self._ahead.ended(group)
            self._forget_if_unused(queue)

    def clear(self, node: Node) -> None:
        """Forget the groups and the reservation of a node that is not up any more."""
        self.release(node)
        for group in list(node.groups):
            group.running = 0
            group.queued.clear()
            self.ended(group)
        self._roomier.pop(node, None)

    def release(self, node: Node) -> None:
        """End the node's reservation, if it has one."""
        if self._ageing.release(node):
            self._roomier[node] = None

    # --- the pass

    def refit(self) -> list[tuple[Queue, str]]:
        """Size and rank what has changed; return the queues that no node could ever serve."""
        if self._version != self._fleet.version:
            self._version = self._fleet.version
            self._fresh.update(dict.fromkeys(self._order))
            self._ageing.watch_again(self._order)
            self._least = (math.inf, math.inf)
        for category in self._learned:
            if self._telling is not None:
                telling = self._telling(category.name)
                if telling != category.telling:
                    category.telling = telling
                    self._sort_anew(category)
            for queue in category.queues:
                if queue.waiting and queue not in self._fresh:
                    resized = self._size(queue)
                    if resized:
                        self._fresh[queue] = None
                    self._rank(queue, resized=resized)
        self._learned.clear()
        hopeless = []
        for queue in self._fresh:
            if queue.waiting:
                self._size(queue)
                self._rank(queue)
                if queue.grant is None:
                    reason = self._fleet.why_never(queue.profile)
                    if reason:
                        hopeless.append((queue, reason))
                if queue.reserved is not None and not still_wants(queue, queue.reserved):
                    self.release(queue.reserved)
        return hopeless

    def _sort_anew(self, category: Category) -> None:
        """Let each wait with its like, now that others are alike: 2 us for each who waits."""
        moving: list[tuple[InvocationId, Seconds, Invocation]] = []
        for queue in list(category.queues):
            if queue.waiting:
                moving.extend((n, queue.passed_since, each) for n, each in queue.waiting.items())
                queue.waiting.clear()
                self._deactivate(queue)
        moving.sort(key=itemgetter(0))  # those that run again are older than those that never ran
        for _, passed_since, invocation in moving:
            self.enter(invocation, category, invocation.retry, passed_since)

    def run(self, at: Seconds, actions: list[Action]) -> None:
        """Start what fits, send ahead what is short, ask back what is stuck, keep promises."""
        roomier = bool(self._roomier)
        if roomier or self._fresh:
            self._ageing.look_ahead(at)
        while self._fresh or self._roomier:
            self._place(at, actions)
        self._send_ahead(at, actions)
        for queue in self._ageing.now_aged(at):
            self._rank(queue)
        self._ageing.reserve(at)
        self._ahead.recall(at, actions, roomier=roomier)
        self._ask_for_tick(actions)

    def _size(self, queue: Queue) -> bool:
        return size_queue(queue, self._fleet, self._sizer, self._elastic.charged)

    def ticked(self, at: Seconds) -> None:
        """A tick is here. One that is earlier than the last that was asked for is an old one."""
        if at >= self._wake_at - _TICK_EARLY:
            self._wake_at = _NEVER

    def _place(self, at: Seconds, actions: list[Action]) -> None:
        rooms = [node for node in self._roomier if node.state is NodeState.UP]
        self._roomier.clear()
        kept = [node for node in rooms if self._is_kept_from_all(node)]
        for node in kept:  # else all that would fit there were asked, to no avail
            rooms.remove(node)
            if node.reserved is not None:
                self._fresh[node.reserved] = None
        fresh = deque(sorted(self._fresh, key=_by_rank))
        self._fresh = {}
        cores, memory = _most_free(rooms)
        after: Rank | None = None
        asked = 0
        while fresh or rooms:
            if asked > _ASKED_TO_FILL_IN:
                rooms = [node for node in rooms if node.reserved is None]
                cores, memory = _most_free(rooms)
                asked = 0
            # Those that are not fresh fit nowhere but where room has appeared.
            queue = self._order.first_that_fits(after, cores, memory) if rooms else None
            if queue is None:
                rooms = []
            where: Sequence[Node] | None = rooms
            if fresh and (queue is None or fresh[0].rank <= queue.rank):
                queue, where = fresh.popleft(), None
            elif queue is None:
                break
            after = queue.rank
            if not self._start_all_that_fits(queue, at, actions, where):
                asked += where is not None
                continue
            asked = 0
            if kept:
                rooms += [node for node in kept if node.reserved is None]
                kept = [node for node in kept if node.reserved is not None]
            if rooms:
                least_cores, least = self._least
                rooms = [n for n in rooms if n.cores >= least_cores and n.memory >= least]
                cores, memory = _most_free(rooms)

    def _is_kept_from_all(self, node: Node) -> bool:
        """Tell whether only the queue that it is reserved for may use a node."""
        queue = node.reserved
        first = next(iter(self._order), None)
        if queue is None or first is None or node.spare > 0:
            return False
        return not may_go_before(first, queue)

    def _start_all_that_fits(
        self,
        queue: Queue,
        at: Seconds,
        actions: list[Action],
        nodes: Sequence[Node] | None = None,
    ) -> bool:
        """Start of a queue what fits on these nodes, or on any; return whether something did."""
        grant = queue.grant
        if grant is None:
            return False
        if queue.profile.node is not None:
            pinned = self._fleet.up.get(queue.profile.node)
            nodes = [pinned] if pinned is not None and (nodes is None or pinned in nodes) else []
        rooms = self._fleet.rooms
        if nodes is None and len(queue.waiting) <= FEW:
            return self._start_few(queue, grant, at, actions)
        if nodes is None:
            found = rooms.choices(queue, grant)
        else:
            found = choices(zip(nodes, count(), strict=False), queue, grant)
        if not found:
            return False
        heapify(found)
        while found and queue.waiting:
            _, number, node = heappop(found)
            self._start(queue, node, grant, at, actions)
            if node.fits(grant):
                heappush(found, (score(node, queue, grant), number, node))
        return True

    def _start_few(self, queue: Queue, grant: Grant, at: Seconds, actions: list[Action]) -> bool:
        """Do the same on any node, without a look at all of them."""
        again: dict[int, Node] = {}  # nodes on which one more fits
        started = False
        while queue.waiting:
            found = [(score(node, queue, grant), number, node) for number, node in again.items()]
            best = self._fleet.rooms.best(queue, grant)
            if best is not None:
                found.append(best)
            if not found:
                break
            _, number, node = min(found)
            self._start(queue, node, grant, at, actions)
            started = True
            again.pop(number, None)
            if node.fits(grant):
                again[number] = node
        return started

    def _start(
        self, queue: Queue, node: Node, grant: Grant, at: Seconds, actions: list[Action]
    ) -> None:
        group = self._group(queue, node)
        node.take(grant)
        invocation = self._send(queue, group, at, actions, queued=False)
        invocation.started = at
        group.running += 1
        node.running[invocation.id] = invocation
        node.environments.add(queue.profile.environment)
        self._fleet.rooms.started(node, queue.profile.environment)
        self._ahead.moved(group)
        if queue.reserved is not None:
            self.release(queue.reserved)

    def _send_ahead(self, at: Seconds, actions: list[Action]) -> None:
        for group, room in self._ahead.lanes():
            self._ahead.sent(group, at)
            for _ in range(room):
                # What may run at most once is not sent ahead: if its node were lost,
                # nobody could say whether it had started.
                if next(iter(group.queue.waiting.values())).request.retries == 0:
                    break
                invocation = self._send(group.queue, group, at, actions, queued=True)
                group.queued[invocation.id] = invocation
                group.node.queued += 1
            self.ended(group)

    def _send(
        self, queue: Queue, group: Group, at: Seconds, actions: list[Action], *, queued: bool
    ) -> Invocation:
        _, invocation = queue.waiting.popitem(last=False)
        invocation.step(Step.QUEUE if queued else Step.START)
        invocation.queue = None
        invocation.group = group
        invocation.attempt += 1
        queue.passed_since = at
        if not queue.waiting:
            self._deactivate(queue)
        elif self._ageing.served(queue):
            self._rank(queue)
        actions.append(
            Start(
                invocation.id,
                invocation.attempt,
                group.node.name,
                group.grant.allocation,
                group.id,
                queued,
                group.reuse,
            )
        )
        return invocation

    def _ask_for_tick(self, actions: list[Action]) -> None:
        wanted = min(self._ageing.wakes_at(waiting=bool(self._order)), self._ahead.recall_at)
        if wanted < self._wake_at:
            self._wake_at = wanted
            actions.append(WakeAt(wanted))

    # --- queues and groups

    def _queue(self, request: Request, category: Category, retry: Retry | None) -> Queue:
        key = (request.profile, self._similar(request), retry)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._idle.pop(key, None)
            if queue is None or queue.category is not category:
                queue = Queue(key, category, request.sizing_features, 0)
            self._queues[key] = queue
            category.queues[queue] = None
        return queue

    def _group(self, queue: Queue, node: Node) -> Group:
        grant = queue.grant
        assert grant is not None
        key = (node, grant, queue.reuse)
        group = queue.groups.get(key)
        if group is None:
            self._groups_made += 1
            group = queue.groups[key] = Group(self._groups_made, node, queue, grant, key[2])
            node.groups[group] = None
        return group

    def _activate(self, queue: Queue, at: Seconds) -> None:
        self._activations += 1
        queue.serial = self._activations
        queue.passed_since = at
        self._fresh[queue] = None
        self._ahead.refilled(queue, self._groups_made)
        self._ageing.watch(queue)

    def _deactivate(self, queue: Queue) -> None:
        if queue.ranked:
            self._order.remove(queue)
            queue.ranked = False
        self._fresh.pop(queue, None)
        self._ageing.drop(queue)
        if queue.reserved is not None:
            self.release(queue.reserved)
        if not self._order:
            self._ageing.drop_all()
            self._least = (math.inf, math.inf)
        self._forget_if_unused(queue)

    def _rank(self, queue: Queue, *, resized: bool = True) -> None:
        after = rank(queue)
        if queue.grant is not None:
            cores, memory = self._least
            self._least = (min(cores, queue.grant.cores), min(memory, queue.grant.memory))
        if queue.ranked:
            if after == queue.rank:
                if resized:
                    self._order.resized(queue)
                return
            self._order.remove(queue)
        queue.rank = after
        queue.ranked = True
        self._order.add(queue)

    def _forget_if_unused(self, queue: Queue) -> None:
        if not queue.waiting and not queue.groups and self._queues.get(queue.key) is queue:
            del self._queues[queue.key]
            queue.category.queues.pop(queue, None)
            if queue.retry is None:
                self._idle[queue.key] = queue
                if len(self._idle) > IDLE_QUEUES:
                    del self._idle[next(iter(self._idle))]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of any invocation."""
        return not (
            self._queues or self._order or not self._ahead.is_empty or not self._ageing.is_empty
        )
