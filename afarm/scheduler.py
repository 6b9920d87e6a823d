"""Feeds what happens to the core, and does what the core answers.

Nothing is decided here. Events of one turn of the loop are handled together: the core
packs once for all of them, and each node gets all of its messages in one write.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sys
from typing import Any, TextIO

from . import outcome
from ._core import actions as do
from ._core import events as event
from ._core.farm_state import FarmState
from ._core.node import NodeState
from ._wire import messages as wire
from ._wire.payloads import Buffer
from .call import Call
from .completion import Completions
from .errors import FarmError, NodeError, ProtocolError, RemoteProtocolError
from .link import Link
from .membership import Membership
from .payload import FunctionPickles
from .recorder import Recorder
from .resources import Usage
from .sizing import Sizer
from .software import SoftwareLibrary
from .staging import Staging, take_arguments
from .transport.base import Node
from .turns import Turns

log = logging.getLogger("afarm")


class Scheduler:
    """One farm's loop between its callers, the core and its nodes.

    Args:
        sizer: Chooses allocations.
        silence: Seconds without a sign of life after which a node ends what it runs.
        show_output: Whether what functions print appears here.
        recorder: Who keeps a record, if anybody does.
    """

    def __init__(
        self,
        sizer: Sizer,
        *,
        silence: float,
        show_output: bool,
        recorder: Recorder | None = None,
    ) -> None:
        self._turns = Turns(self._handle)
        self.loop = self._turns.loop
        # Predictions of a sizer that knows of it are no limits; see `_core.elastic`.
        self.state = FarmState(sizer, "live" if hasattr(sizer, "elastic") else "hard")
        self.functions = FunctionPickles()
        self.numbers = itertools.count(1)
        self.library = SoftwareLibrary(self.numbers)
        self.staging = Staging(self.library, self.numbers)
        self._warming = self.loop.run_in_executor(None, self.library.warm_up)
        self._membership = Membership(self._turns, self, silence=silence)
        self.specs = self._membership.specs
        self.links = self._membership.links
        release = functools.partial(self.staging.release, links=self.links)
        self._completions = Completions(self._turns, release, recorder)
        self._recorder = recorder
        self.calls = self._completions.calls
        self.tally = self._completions.tally
        self.unseen = self._completions.unseen
        self.broken: FarmError | None = None  # why it can decide nothing any more
        self._show_output = show_output

    # --- calls

    def submit(self, call: Call) -> None:
        """Take a call; its future is resolved in time, whatever happens."""
        if self.broken is not None:
            call.function = None  # it was not held for this call
            self.refuse(call, self.broken)
            return
        self.calls[call.id] = call
        if self._recorder is not None:
            self._recorder.submitted(call)
        assert call.function is not None
        assert call.arguments is not None
        self.staging.hold(call.function)
        if call.target.request is None or call.arguments.invocations or call.memo is not None:
            self._turns.spawn(self._prepare(call))
        else:
            self._enter(call, call.target.request)

    def _enter(self, call: Call, request: event.Request) -> None:
        call.entered = True
        call.state = "waiting"
        if call.features:
            request = request.with_features(call.features)
        self._turns.post(event.Submit(call.id, request, self._turns.now()))

    async def _prepare(self, call: Call) -> None:
        """Find out what a call's function needs, and wait for earlier results."""
        try:
            request = call.target.request
            if request is None:
                call.state = "staging"
                ship = any(not node.in_place for node in self.specs.values())
                request = await self.staging.analyze(call.target, ship=ship)
            call.state = "waiting"
            await take_arguments(call)
            call.take_sizes()
            if call.memo is not None and await self._recall(call):
                return
        except asyncio.CancelledError:
            if call.future is not None:
                call.future.cancel()
            self._completions.discard(call)
            return
        except Exception as exc:  # told through the invocation, whatever analysis met
            self._completions.fail(call, exc)
            return
        if call.id in self.calls:
            self._enter(call, request)

    async def _recall(self, call: Call) -> bool:
        """Resolve a call with the result of an earlier one; return whether there is one."""
        if self._recorder is None:
            return False
        parts = await self._recorder.recall(call)
        return parts is not None and await self._completions.recall(call, parts)

    def cancel(self, call: Call) -> None:
        """The caller does not want it any more; its process tree is ended."""
        if call.id not in self.calls:
            return
        if call.entered:
            self._turns.post(event.Cancel(call.id, self._turns.now()))
        else:
            self._completions.discard(call)

    def cancel_all(self) -> None:
        """Cancel everything that is not over."""
        for call in list(self.calls.values()):
            if call.future is not None:
                call.future.cancel()
            else:
                self.cancel(call)

    def give_up_without_nodes(self) -> None:
        """Fail everything if the farm has no node: no more is going to come."""
        if self.specs:
            return
        for call in list(self.calls.values()):
            self._completions.resolve_error(call, outcome.nodeless_error(call))
            self.cancel(call)

    def cancel_streams_of(self, consumer: asyncio.Task[Any] | None) -> None:
        """Cancel the streams whose items this task has been taking."""
        for call in list(self.calls.values()):
            if call.stream is not None and call.stream.consumer is consumer and call.future:
                call.future.cancel()

    def refuse(self, call: Call, error: FarmError) -> None:
        """Fail a call that cannot be submitted."""
        self.calls[call.id] = call
        self._completions.fail(call, error)

    async def wait_idle(self) -> None:
        """Return when nothing is waiting or running, and all that was killed is gone."""
        await self._completions.wait_idle()

    def tell_unseen(self) -> None:
        """Say in one line which failures nobody looked at."""
        self._completions.tell_unseen()

    # --- nodes

    def add_node(self, node: Node) -> asyncio.Future[str | None]:
        """Take a node; the future says how the first try to open it went: why not, or ``None``."""
        if self.broken is not None:
            first_try: asyncio.Future[str | None] = self.loop.create_future()
            first_try.set_result(str(self.broken))
            return first_try
        return self._membership.add(node)

    async def remove_node(self, name: str, *, drain: bool) -> None:
        """Let a node go, at once or when it is empty; return when it is gone."""
        if self.broken is None:
            await self._membership.remove(name, drain=drain)

    async def close(self, *, hurry: bool = False) -> None:
        """Close all connections, when everything on the nodes has ended.

        Args:
            hurry: Do not wait for the nodes: they end what they run by themselves.
        """
        await self._membership.close(hurry=hurry)

    def forget_soon(self, blob: int) -> None:
        """Drop an object from the nodes; from any thread, since a `Ref` may die in any."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._forget_object, blob)

    def _forget_object(self, blob: int) -> None:
        for link in self.links.values():
            link.forget(blob)

    # --- the turn of the loop

    def _handle(self, events: list[event.Event]) -> None:
        if self.broken is not None:
            return
        for link in self.links.values():
            link.cork()
        try:
            actions = self.state.handle_all(events)
        except ProtocolError:
            # What one node says cannot be; which, is in the event. The others have counted.
            log.exception("a fault inside the farm, please report it")
            actions = self.state.handle_all([])
        except Exception as exc:  # a sizer is the user's code: nobody may wait for ever
            self._break(exc)
            actions = []
        for action in actions:
            self._perform(action)
        for link in list(self.links.values()):
            link.flush()

    def _break(self, cause: Exception) -> None:
        """Fail everything: what the core holds may contradict itself from here on."""
        log.error("the farm cannot go on", exc_info=cause)
        self.broken = FarmError(
            f"the farm cannot go on, since deciding what runs where failed: {cause!r}; if that "
            "is not from a sizer of yours, please report it. Close this farm and make a new one"
        )
        self.broken.__cause__ = cause
        for call in list(self.calls.values()):
            self._completions.fail(call, self.broken)
        self._membership.abandon(str(self.broken))

    def _perform(self, action: do.Action) -> None:
        if isinstance(action, do.Start):
            self._start(action)
        elif isinstance(action, do.Complete):
            self._completions.complete(action)
        elif isinstance(action, do.Kill):
            link = self.links.get(action.node)
            if link is not None:
                reason = wire.KillReason.EVICTED if action.evicted else wire.KillReason.CANCELLED
                self.tally.evictions += action.evicted
                link.drop_bulk(action.invocation)
                link.send(wire.Kill(action.invocation, action.attempt, reason))
        elif isinstance(action, do.Recall):
            link = self.links.get(action.node)
            if link is not None:
                link.send(wire.Recall(action.invocation, action.attempt))
        elif isinstance(action, do.Resize):
            link = self.links.get(action.node)
            if link is not None:
                self.calls[action.invocation].resize(action.allocation)
                link.send(wire.Resize(action.invocation, action.attempt, action.allocation))
        elif isinstance(action, do.Connect):
            self._membership.connect(action.node, action.delay)
        elif isinstance(action, do.WakeAt):
            self._turns.wake_at(action.at)
        elif isinstance(action, do.DrainedNode):
            self._membership.release(action.node)

    # --- starting

    def _start(self, action: do.Start) -> None:
        call = self.calls[action.invocation]
        link = self.links[action.node]
        call.begin(action.attempt, action.node, action.allocation, self.state.predicted_by)
        call.link = link
        if self._recorder is not None:
            self._recorder.started(call)
        software = call.target.software
        if software is not None and software.id in link.broken:
            self._fail_for_node(call, link)
        elif self.staging.ready(call, link):
            self.staging.start(call, link, action, soft=self._is_soft(call))
        else:
            call.state = "staging"
            self._turns.spawn(self._stage(call, link, action))

    def _is_soft(self, call: Call) -> bool:
        return self.state.mode != "hard" and call.stated.memory is None

    async def _stage(self, call: Call, link: Link, action: do.Start) -> None:
        """Make what the node lacks, then send it and the call."""
        try:
            await self.staging.prepare(call, link)
        except FarmError as exc:
            call.error = exc
            if self._is_current(call, link, action.attempt):
                failed = event.Failed(call.id, action.attempt, Usage(), 0, False, self._turns.now())
                self._turns.post(failed)
            return
        if self._is_current(call, link, action.attempt):
            if call.future is None or call.future.cancelled():
                killed = event.Killed(call.id, action.attempt, Usage(), 0, self._turns.now())
                self._turns.post(killed)
            else:
                self.staging.start(call, link, action, soft=self._is_soft(call))

    def _is_current(self, call: Call, link: Link, attempt: int) -> bool:
        return (
            call.id in self.calls
            and call.attempt == attempt
            and call.link is link
            and self._membership.holds(link)
        )

    # --- what the nodes say: link.LinkEvents

    def attempt_ended(self, link: Link, ended: wire.Ended, parts: list[Buffer]) -> None:
        call = self._current(link, ended.invocation, ended.attempt)
        if call is None:
            return
        software = call.target.software
        if ended.outcome is wire.Outcome.UNUSABLE and software and software.id in link.broken:
            return  # failed already, with what the node said of its environment
        self._completions.attempt_ended(call, ended, parts)

    def result_lost(self, link: Link, ended: wire.Ended, reason: str) -> None:
        call = self._current(link, ended.invocation, ended.attempt)
        if call is not None:
            self._completions.result_lost(call, ended, reason)

    def lane_handed_on(self, link: Link, ended: wire.Ended) -> None:
        call = self._current(link, ended.invocation, ended.attempt)
        if call is not None:
            self._turns.post(event.HandedOn(call.id, ended.attempt, ended.next, self._turns.now()))

    def attempt_returned(self, link: Link, returned: wire.Returned) -> None:
        call = self._current(link, returned.invocation, returned.attempt)
        if call is not None:
            call.state = "waiting"
            call.take_back(returned.attempt)
            self._turns.post(event.Returned(call.id, returned.attempt, self._turns.now()))

    def item_arrived(self, link: Link, item: wire.Item, parts: list[Buffer]) -> None:
        call = self._current(link, item.invocation, item.attempt)
        if call is None or call.stream is None:
            return
        if item.index < call.stream.arrived:
            # The caller has had it from an earlier attempt: the node may send one more.
            link.send(wire.More(call.id, item.attempt, 1))
            return
        call.stream.arrived += 1
        call.stream.items.append(parts)
        call.stream.wake()

    def items_taken(self, call: Call, count: int) -> None:
        """The caller has taken items of a stream: its node may send as many more."""
        link = call.link
        if link is not None and self._current(link, call.id, call.attempt) is call:
            link.send(wire.More(call.id, call.attempt, count))

    def output_arrived(self, link: Link, output: wire.Output) -> None:
        call = self._current(link, output.invocation, output.attempt)
        if call is None:
            return
        call.print(output.body, output.dropped)
        if self._show_output:
            show(sys.stdout if output.stream == 1 else sys.stderr, call, output.body)

    def details_arrived(self, link: Link, details: wire.Details) -> None:
        call = self._current(link, details.invocation, details.attempt)
        if call is not None:
            try:
                call.note_details(details)
            except ValueError as exc:
                raise RemoteProtocolError(str(exc)) from exc

    def reading_arrived(self, link: Link, reading: wire.Reading) -> None:
        call = self._current(link, reading.invocation, reading.attempt)
        if call is not None:
            call.usage = reading.usage
            self._turns.post(
                event.Reading(call.id, reading.attempt, reading.usage, self._turns.now())
            )

    def heartbeat_arrived(self, link: Link, beat: wire.Heartbeat) -> None:
        if self._membership.holds(link):
            now = self._turns.now()
            self._turns.post(
                event.NodeLoad(link.node.name, beat.available, beat.pressure, now, beat.load)
            )

    def blob_state(self, link: Link, state: wire.Stored | wire.Lost) -> None:
        self.staging.blob_state(link, state)

    def environment_state(self, link: Link, state: wire.EnvironmentState) -> None:
        if state.problem:
            log.warning("node %s: %s", link.node.name, state.problem)
            others = (each for each in self.state.nodes() if each.name != link.node.name)
            if any(each.state in (NodeState.UP, NodeState.CONNECTING) for each in others):
                link.fail(f"cannot provide an environment: {state.problem}")
            else:
                self._fail_environment(link, state)
        elif state.notes:
            log.info("node %s: %s", link.node.name, state.notes)

    def _fail_environment(self, link: Link, state: wire.EnvironmentState) -> None:
        """Fail the calls that wait for an environment which no other node could have."""
        link.broken[state.environment] = state.problem
        for call in list(self.calls.values()):
            software = call.target.software
            if call.link is link and software is not None and software.id == state.environment:
                self._fail_for_node(call, link)

    def _fail_for_node(self, call: Call, link: Link) -> None:
        assert call.target.software is not None
        problem = link.broken[call.target.software.id]
        name = link.node.name
        call.error = NodeError(
            f"node {name} cannot provide what {call.category} needs: {problem}", node=name
        )
        self._turns.post(event.Failed(call.id, call.attempt, Usage(), 0, False, self._turns.now()))

    def module_missing(self, link: Link, missing: wire.Missing) -> None:
        # Answered even if its call is over: others there may wait for the same.
        call = self._current(link, missing.invocation, missing.attempt)
        self._turns.spawn(self.staging.supply(link, missing, call))

    def batch_ended(self, link: Link) -> None:
        self._turns.flush()

    def link_lost(self, link: Link, reason: str) -> None:
        if not self._membership.holds(link):
            return
        for call in self.calls.values():
            if call.link is link and call.attempts and call.attempts[-1][4] == "running":
                call.end(None, "lost")
                self.tally.attempts["lost"] += 1
        self._membership.lose(link, reason)

    def _current(self, link: Link, invocation: int, attempt: int) -> Call | None:
        """Return the call if this attempt of it is on this connection."""
        call = self.calls.get(invocation)
        if call is None or call.link is not link or call.attempt != attempt:
            return None
        return call


def show(stream: TextIO, call: Call, data: bytes) -> None:
    """Print what a function printed, each line with where it came from."""
    prefix = f"[{call.category} #{call.id} {call.node}] "
    text = data.decode(errors="replace")
    stream.write("".join(f"{prefix}{line}\n" for line in text.splitlines()))
