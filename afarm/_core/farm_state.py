"""The state of a farm: events in, actions out.

`FarmState` keeps the invocations and the nodes and knows what each event means for
them; who starts where is decided in `dispatch`, once for each batch of events.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from ..resources import RESOURCE_NAMES, Resources, Seconds, Usage
from . import actions as do
from . import events as event
from .actions import Action, Completion
from .ahead import recall
from .allocation import can_grow
from .category import Category
from .dispatch import Dispatcher
from .elastic import ALL_BUSY, EVICTIONS_BEFORE_RESERVED, Elastic, Packing, unhindered
from .events import Event, InvocationId, NodeName
from .fleet import Fleet, stated_of
from .grant import CORE
from .invocation import HOLDING, Invocation, State, Step
from .node import Node, NodeState, NodeView
from .queues import Group, Retry
from .sizers.base import MOST_CATEGORIES, Sizer

# A call that ran on so many nodes when they ran out of memory is charged with it.
_MEMORY_LOSSES = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """How many invocations are where; ``finished`` by outcome, since the beginning."""

    waiting: int
    running: int
    queued: int
    finished: Mapping[Completion, int]


@dataclass(frozen=True, slots=True)
class InvocationView:
    """Where an invocation is at this moment.

    Attributes:
        state: One of the table's.
        node: Where it was sent; ``None`` while it waits.
        attempt: How often it was sent to a node.
        allocation: What it has, or would get now; ``None`` while no node could hold it.
        retries_used: How many of its retries are used up.
    """

    state: State
    node: NodeName | None
    attempt: int
    allocation: Resources | None
    retries_used: int


class FarmState:
    """Everything that is known of invocations and nodes.

    Args:
        sizer: Chooses allocations where nothing is stated.
        mode: How the memory of nodes is packed: ``"hard"``, ``"elastic"`` or ``"live"``; see
            `elastic`. What calls do to elastic and live packing is told by `Reading`s.
    """

    def __init__(self, sizer: Sizer, mode: str = "hard") -> None:
        self._sizer = sizer
        self.mode = mode
        self._elastic = Elastic(Packing(mode), sizer)
        if hasattr(sizer, "elastic"):
            sizer.elastic = mode != "hard"
        self._fleet = Fleet()
        self._dispatcher = Dispatcher(self._fleet, sizer, self._elastic)
        self._invocations: dict[InvocationId, Invocation] = {}
        self._categories: dict[str, Category] = {}
        self._finished: Counter[Completion] = Counter()
        self._actions: list[Action] = []
        self._now = Seconds(-math.inf)  # the latest time that an event told
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            event.Submit: self._submit,
            event.Cancel: self._cancel,
            event.AddNode: self._add_node,
            event.DrainNode: self._drain_node,
            event.DropNode: self._drop_node,
            event.NodeUp: self._node_up,
            event.NodeFailed: self._node_failed,
            event.LoseNode: self._lose_node,
            event.Finished: self._finish,
            event.Failed: self._fail,
            event.Exhausted: self._exhaust,
            event.Killed: self._kill_confirmed,
            event.Returned: self._return,
            event.HandedOn: self._handed_on,
            event.Reading: self._read,
            event.NodeLoad: self._node_load,
            event.Tick: self._tick,
        }

    # --- events

    def handle(self, event: Event) -> list[Action]:
        """Return what is to be done now that this happened; see `handle_all`."""
        return self.handle_all((event,))

    def handle_all(self, events: Iterable[Event]) -> list[Action]:
        """Return what is to be done now that all of this happened, in order.

        Raises:
            ProtocolError: If an event cannot be in the present state; names both. It has
                changed nothing; the other events count, and what is to be done for them
                is in the answer to the next call.
        """
        wrong: ProtocolError | None = None
        for happened in events:
            self._now = max(self._now, happened.at)
            try:
                self._handlers[type(happened)](happened)
            except ProtocolError as exc:
                wrong = wrong or exc
        self._pack(self._now)
        if wrong is not None:
            raise wrong
        answer, self._actions = self._actions, []
        return answer

    def _pack(self, at: Seconds) -> None:
        for queue, reason in self._dispatcher.refit():
            for invocation in list(queue.waiting.values()):
                self._complete(invocation, Completion.UNSCHEDULABLE, reason)
        self._dispatcher.run(at, self._actions)

    def _tick(self, tick: event.Tick) -> None:
        self._dispatcher.ticked(tick.at)

    # --- events: from the user

    def _submit(self, submit: event.Submit) -> None:
        number = submit.invocation
        if number <= 0 or number in self._invocations:
            raise LocalProtocolError(f"invocation {number} cannot be submitted: not a new number")
        invocation = Invocation(number, submit.request, submit.at)
        self._invocations[number] = invocation
        self._dispatcher.enter(invocation, self._category(submit.request.category), None, submit.at)

    def _cancel(self, cancel: event.Cancel) -> None:
        invocation = self._invocations.get(cancel.invocation)
        if invocation is None or invocation.state in (State.KILLING, State.DROPPING):
            return  # it ended in the same moment, or was cancelled before
        if invocation.state is State.WAITING:
            self._complete(invocation, Completion.CANCELLED, "cancelled before it started")
            return
        invocation.step(Step.CANCEL)
        node = _group_of(invocation).node.name
        self._actions.append(do.Kill(invocation.id, invocation.attempt, node, evicted=False))

    def _add_node(self, added: event.AddNode) -> None:
        if added.node in self._fleet.nodes:
            raise LocalProtocolError(f"the farm has a node {added.node} already")
        node = self._fleet.nodes[added.node] = Node(added.node)
        self._fleet.changed(node)
        self._actions.append(do.Connect(added.node, Seconds(0.0)))

    def _drain_node(self, drained: event.DrainNode) -> None:
        node = self._known_node(drained.node)
        if node.state not in (NodeState.UP, NodeState.DRAINING):
            self._remove(node)
            return
        node.begin_to_drain()
        self._dispatcher.release(node)
        self._fleet.changed(node)
        for group in node.groups:
            for invocation in group.queued.values():
                if invocation.state is State.QUEUED:
                    recall(invocation, group, self._actions)
        self._remove_if_drained(node)

    def _drop_node(self, dropped: event.DropNode) -> None:
        node = self._known_node(dropped.node)
        struck = self._take_away(node)
        self._remove(node)
        reason = f"node {node.name} was removed while it ran there, and it may run only once"
        for invocation in struck:
            if invocation.state is State.RUNNING and invocation.request.retries == 0:
                self._end_or_cancel(invocation, Completion.LOST, reason)
            else:
                self._run_again(invocation, dropped.at)

    # --- events: from the connections

    def _node_up(self, up: event.NodeUp) -> None:
        node = self._fleet.nodes.get(up.node)
        if node is None:  # it was removed while the connection was being opened
            self._actions.append(do.DrainedNode(up.node))
            return
        node.come_up(up.capacity)
        self._fleet.changed(node)
        self._dispatcher.freed(node)

    def _node_failed(self, failed: event.NodeFailed) -> None:
        node = self._fleet.nodes.get(failed.node)
        if node is not None:
            delay = node.fail(failed.reason)
            self._fleet.changed(node)
            self._actions.append(do.Connect(node.name, delay))

    def _lose_node(self, lost: event.LoseNode) -> None:
        node = self._fleet.nodes.get(lost.node)
        if node is None:
            return
        draining = node.state is NodeState.DRAINING
        if draining:
            struck = self._take_away(node)
            self._remove(node)
        else:
            node.check_can_be_lost()
            struck = self._take_away(node)
            delay = node.lose(lost.reason, lost.at)
            self._fleet.changed(node)
            self._actions.append(do.Connect(node.name, delay))
        for invocation in struck:
            if invocation.state is State.RUNNING:
                self._strike(invocation, lost)
            else:
                self._run_again(invocation, lost.at)

    def _strike(self, invocation: Invocation, lost: event.LoseNode) -> None:
        """Decide about one that ran on a node when it was lost."""
        invocation.memory_losses += lost.memory
        if invocation.memory_losses >= _MEMORY_LOSSES:
            reason = (
                f"{invocation.memory_losses} nodes ran out of memory while it ran there, "
                f"the last was {lost.node} ({lost.reason}); it is not tried on another one: "
                "state how much memory it needs"
            )
            self._complete(invocation, Completion.LOST, reason)
        elif invocation.retries_left > 0:
            invocation.retries_used += 1
            self._run_again(invocation, lost.at)
        else:
            reason = f"node {lost.node} was lost ({lost.reason}), and no retry is left"
            self._complete(invocation, Completion.LOST, reason)

    # --- events: from the agents

    def _finish(self, finished: event.Finished) -> None:
        before = self._invocations.get(finished.invocation)
        group = None if before is None else before.group
        invocation = self._ended(finished)
        if invocation is None or group is None:
            return
        category = self._category(invocation.request.category)
        category.finish(finished.usage.wall_time)
        self._elastic.returned()
        self._observe(invocation, category, unhindered(finished.usage, group), exhausted=False)
        self._end_or_cancel(invocation, Completion.RETURNED, "")

    def _fail(self, failed: event.Failed) -> None:
        invocation = self._ended(failed)
        if invocation is None:
            return
        self._category(invocation.request.category).failed += 1
        if failed.retry and invocation.state is State.RUNNING and invocation.retries_left > 0:
            invocation.retries_used += 1
            self._run_again(invocation, failed.at)
        else:
            self._end_or_cancel(invocation, Completion.FAILED, "")

    def _exhaust(self, exhausted: event.Exhausted) -> None:
        resource = exhausted.resource
        if resource not in RESOURCE_NAMES:
            raise RemoteProtocolError(
                f"invocation {exhausted.invocation} exhausted {resource!r}, which is no resource"
            )
        before = self._invocations.get(exhausted.invocation)
        group = None if before is None else before.group
        invocation = self._ended(exhausted)
        if invocation is None or group is None:
            return
        category = self._category(invocation.request.category)
        category.exhausted += 1
        self._observe(invocation, category, exhausted.usage, exhausted=True)
        allocation = group.grant.allocation
        if resource == "memory" and self.mode != "hard" and allocation.memory is not None:
            # It had outgrown that, and was ended for more.
            allocation = replace(allocation, memory=max(allocation.memory, exhausted.usage.memory))
        reason = self._why_not_larger(invocation, group, resource, allocation)
        if reason or invocation.state is not State.RUNNING:
            self._end_or_cancel(invocation, Completion.EXHAUSTED, reason)
            return
        invocation.retries_used += 1
        invocation.tries += 1
        retry = Retry(
            invocation.tries,
            allocation,
            resource,
            last=invocation.retries_left == 0,
        )
        self._run_again(invocation, exhausted.at, retry)

    def _why_not_larger(
        self, invocation: Invocation, group: Group, resource: str, allocation: Resources
    ) -> str:
        """Return why an invocation is not tried again with more, or "" if it is."""
        if stated_of(invocation.request.stated, resource) is not None:
            return f"it went over its stated {resource}"
        if not can_grow(allocation, resource, group.queue, self._fleet):
            return f"it went over the {resource} of the largest node"
        if invocation.retries_left == 0:
            return f"it went over its predicted {resource}, and no retry is left"
        return ""

    def _kill_confirmed(self, killed: event.Killed) -> None:
        invocation = self._ended(killed)
        if invocation is None:
            return
        if invocation.evicting:
            self._evicted(invocation, killed)
            return
        if invocation.state is State.RUNNING:  # not asked for: somebody else ended it there
            if invocation.retries_left == 0:
                reason = "it was stopped on its node, though not by this farm; no retry is left"
                self._complete(invocation, Completion.LOST, reason)
                return
            invocation.retries_used += 1
        self._run_again(invocation, killed.at)

    def _evicted(self, invocation: Invocation, killed: event.Killed) -> None:
        """Let one wait again that had to make room: it costs no retry."""
        category = self._category(invocation.request.category)
        seen = max(killed.usage.memory, invocation.used)
        over = invocation.evicted_from
        reserved = invocation.evictions >= EVICTIONS_BEFORE_RESERVED
        retry = invocation.retry
        if seen > (over.memory or 0):
            self._observe(invocation, category, replace(killed.usage, memory=seen), exhausted=True)
            invocation.tries += 1
            previous = replace(over, memory=seen)
            retry = Retry(invocation.tries, previous, "memory", last=False, reserved=reserved)
        elif reserved:
            previous = over if retry is None else retry.previous
            retry = Retry(max(1, invocation.tries), previous, "memory", last=False, reserved=True)
        invocation.forget_attempt()
        self._run_again(invocation, killed.at, retry)

    def _read(self, reading: event.Reading) -> None:
        invocation = self._current(reading.invocation, reading.attempt)
        if invocation is None or invocation.group is None:
            return
        group = invocation.group
        if self._elastic.read(invocation, group, reading.usage, reading.at, self._actions):
            self._dispatcher.freed(group.node)

    def _node_load(self, load: event.NodeLoad) -> None:
        node = self._fleet.nodes.get(load.node)
        if node is None or node.state is not NodeState.UP:
            return
        node.busy = load.cores * CORE >= ALL_BUSY * node.total[0]
        if self._elastic.weigh(node, load.available, load.pressure):
            self._dispatcher.freed(node)

    def _return(self, returned: event.Returned) -> None:
        invocation = self._current(returned.invocation, returned.attempt)
        if invocation is None:
            return
        if invocation.state in HOLDING:
            raise RemoteProtocolError(
                f"invocation {invocation.id} was returned, but is {invocation.state.name.lower()}"
            )
        self._leave_queue(invocation)
        self._run_again(invocation, returned.at)

    # --- the end of an attempt

    def _current(self, number: InvocationId, attempt: int) -> Invocation | None:
        """Return the invocation if this attempt of it is on a node; else it is old news."""
        invocation = self._invocations.get(number)
        if invocation is None or invocation.attempt != attempt or invocation.state is State.WAITING:
            return None
        return invocation

    def _ended(
        self, over: event.Finished | event.Failed | event.Exhausted | event.Killed
    ) -> Invocation | None:
        """Free what the attempt held, or hand it on; return the invocation, without a group.

        Raises:
            RemoteProtocolError: If it or its successor cannot be in that place.
        """
        invocation = self._current(over.invocation, over.attempt)
        if invocation is None:
            return None
        group = _group_of(invocation)
        if invocation.state not in HOLDING:
            # Never started: killed in time, or what it needs could not be had.
            if over.next or not isinstance(over, (event.Killed, event.Failed)):
                raise RemoteProtocolError(
                    f"invocation {invocation.id} ended, but is {invocation.state.name.lower()}"
                )
            self._leave_queue(invocation)
            return invocation
        if over.next:
            if invocation.handed_on:
                raise RemoteProtocolError(
                    f"invocation {over.next} took over from {invocation.id}, as another one had"
                )
            self._take_over(invocation, group, over.next, over.at)
        node = group.node
        del node.running[invocation.id]
        invocation.group = None
        invocation.evicted_from = group.grant.allocation
        node.ended(over.at - invocation.started)
        self._give_back_growth(invocation, group)
        if invocation.handed_on:
            self._fleet.rooms.changed(node)
        else:
            self._dispatcher.moved(group)
            if over.next:
                self._fleet.rooms.changed(node)
            else:
                self._free(group)
        invocation.handed_on = False
        self._remove_if_drained(node)
        return invocation

    def _handed_on(self, handed: event.HandedOn) -> None:
        invocation = self._current(handed.invocation, handed.attempt)
        if invocation is None:
            return
        if invocation.state not in HOLDING or invocation.handed_on:
            raise RemoteProtocolError(
                f"invocation {handed.next} took over from {invocation.id}, which holds nothing"
            )
        group = _group_of(invocation)
        self._take_over(invocation, group, handed.next, handed.at)
        self._give_back_growth(invocation, group)
        invocation.handed_on = True

    def _give_back_growth(self, invocation: Invocation, group: Group) -> None:
        """Let a node have back what an attempt was charged with beyond its group's grant."""
        if self._elastic.give_back(invocation, group):
            self._dispatcher.freed(group.node)

    def _free(self, group: Group) -> None:
        """Give one allocation of a group back to its node."""
        group.running -= 1
        group.node.give_back(group.grant)
        self._dispatcher.freed(group.node)
        self._dispatcher.ended(group)

    def _take_over(
        self, invocation: Invocation, group: Group, number: InvocationId, at: Seconds
    ) -> None:
        """Let a queued one have the allocation of one that is over.

        Raises:
            RemoteProtocolError: If it is not queued in that group.
        """
        successor = group.queued.get(number)
        if successor is None:
            raise RemoteProtocolError(
                f"invocation {number} took over from {invocation.id}, but is not queued behind it"
            )
        successor.step(Step.TAKE_OVER)
        del group.queued[successor.id]
        node = group.node
        node.queued -= 1
        successor.started = at
        node.running[successor.id] = successor
        self._dispatcher.progressed(group, at)
        if not group.queued:
            self._dispatcher.ended(group)

    def _leave_queue(self, invocation: Invocation) -> None:
        """Take one that never started out of its group."""
        group = _group_of(invocation)
        del group.queued[invocation.id]
        group.node.queued -= 1
        invocation.group = None
        self._dispatcher.moved(group)
        self._dispatcher.ended(group)
        self._remove_if_drained(group.node)

    def _run_again(self, invocation: Invocation, at: Seconds, retry: Retry | None = None) -> None:
        """Let it wait again, before those that have not started yet."""
        if invocation.state in (State.KILLING, State.DROPPING):
            self._end_or_cancel(invocation, Completion.CANCELLED, "")
            return
        invocation.step(Step.AGAIN)
        invocation.forget_attempt()
        retry = retry or invocation.retry
        invocation.retry = retry
        category = self._category(invocation.request.category)
        self._dispatcher.enter(invocation, category, retry, at, first=True)

    def _end_or_cancel(self, invocation: Invocation, outcome: Completion, reason: str) -> None:
        """Complete it as it ended, or as cancelled if that was asked for before."""
        if invocation.state in (State.KILLING, State.DROPPING):
            outcome, reason = Completion.CANCELLED, "cancelled"
        self._complete(invocation, outcome, reason)

    def _complete(self, invocation: Invocation, outcome: Completion, reason: str) -> None:
        invocation.step(Step.COMPLETE)
        if invocation.queue is not None:
            self._dispatcher.withdraw(invocation)
        del self._invocations[invocation.id]
        self._finished[outcome] += 1
        self._actions.append(do.Complete(invocation.id, outcome, reason))

    def _observe(
        self, invocation: Invocation, category: Category, usage: Usage, *, exhausted: bool
    ) -> None:
        request = invocation.request
        self._sizer.observe(category.name, request.sizing_features, usage, exhausted=exhausted)
        self._dispatcher.learned(category, surprised=exhausted)

    def _category(self, name: str) -> Category:
        category = self._categories.get(name)
        if category is None:
            if len(self._categories) >= MOST_CATEGORIES:
                self._forget_a_category()
            category = self._categories[name] = Category(name)
        return category

    def _forget_a_category(self) -> None:
        """Forget the oldest category that nothing waits or runs in."""
        for name, category in self._categories.items():
            if not category.queues:
                del self._categories[name]
                return

    # --- nodes

    def _known_node(self, name: NodeName) -> Node:
        node = self._fleet.nodes.get(name)
        if node is None:
            raise LocalProtocolError(f"the farm has no node {name}")
        return node

    def _take_away(self, node: Node) -> list[Invocation]:
        """Clear a node that is lost or removed; return who was there, the youngest first.

        In that order they are put before the others, so that the oldest is served first.
        """
        struck = list(node.running.values())
        for group in node.groups:
            struck.extend(group.queued.values())
        self._dispatcher.clear(node)
        for invocation in struck:
            invocation.group = None
            invocation.handed_on = False
            invocation.forget_attempt()
        return sorted(struck, key=lambda invocation: -invocation.id)

    def _remove(self, node: Node) -> None:
        self._dispatcher.clear(node)
        node.leave()
        self._fleet.changed(node)
        self._actions.append(do.DrainedNode(node.name))

    def _remove_if_drained(self, node: Node) -> None:
        if node.state is NodeState.DRAINING and node.empty:
            self._remove(node)

    # --- views

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting, running or on its way."""
        return not self._invocations

    def nodes(self) -> list[NodeView]:
        """Return all nodes, in the order they were added."""
        return [node.view() for node in self._fleet.nodes.values()]

    def node_view(self, name: NodeName) -> NodeView:
        """Return one node.

        Raises:
            KeyError: If there is none of that name.
        """
        return self._fleet.nodes[name].view()

    def counts(self) -> Counts:
        """Return how many invocations are where."""
        running = sum(len(node.running) for node in self._fleet.nodes.values())
        queued = sum(node.queued for node in self._fleet.nodes.values())
        return Counts(
            waiting=len(self._invocations) - running - queued,
            running=running,
            queued=queued,
            finished=dict(self._finished),
        )

    def invocation_view(self, number: InvocationId) -> InvocationView:
        """Return where an invocation is.

        Raises:
            KeyError: If it is over, or never was.
        """
        invocation = self._invocations[number]
        group, queue = invocation.group, invocation.queue
        grant = group.grant if group is not None else None if queue is None else queue.grant
        return InvocationView(
            state=invocation.state,
            node=None if group is None else group.node.name,
            attempt=invocation.attempt,
            allocation=None if grant is None else grant.allocation,
            retries_used=invocation.retries_used,
        )

    def predicted_by(self, category: str) -> str | None:
        """Return the feature that predictions for a category follow from, if one is known."""
        told: Callable[[str], str | None] | None = getattr(self._sizer, "predicted_by", None)
        return None if told is None else told(category)

    def finished(self, category: str) -> int:
        """Return how many invocations of a category have returned, as far as is remembered."""
        known = self._categories.get(category)
        return known.finished if known is not None else 0

    def __repr__(self) -> str:
        counts = self.counts()
        return (
            f"<FarmState {len(self._fleet.nodes)} nodes, {counts.waiting} waiting, "
            f"{counts.running} running>"
        )


def _group_of(invocation: Invocation) -> Group:
    group = invocation.group
    assert group is not None, invocation
    return group
