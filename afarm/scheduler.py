"""Feeds what happens to the core, and does what the core answers.

Nothing is decided here. Events of one turn of the loop are handled together: the core
packs once for all of them, and each node gets all of its messages in one write.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import sys
import weakref
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TextIO

from . import outcome
from ._core import actions as do
from ._core import events as event
from ._core.actions import Completion
from ._core.farm_state import FarmState
from ._wire import messages as wire
from ._wire.payloads import INLINE, Buffer, pack_layout
from .call import IN_THREAD, Call, Unopened
from .errors import FarmError, InvocationError, NodeError, ProtocolError
from .link import Greeting, Link
from .payload import FunctionPickles, Packed, RemoteFailure, load, load_failure
from .resources import Seconds, Usage
from .sizing import Sizer
from .software import SoftwareLibrary
from .staging import Staging
from .tally import Tally
from .transport.base import Node

log = logging.getLogger("afarm")

# Events that one turn of the loop handles. Each costs 2 to 10 us with what follows from it,
# and nobody else's turn should have to wait longer than 20 ms.
EVENTS_AT_ONCE = 500

# Results below this are not counted among what one turn of the loop unpickles: a thread
# would take longer to begin than they take.
BURST = 8 << 10

# How often nodes are judged, in seconds.
CHECK = 1.0

# How long the agents have to end everything when the farm closes; "gone within 5 s" is
# what they promise themselves.
CLOSING = 6.0

# And how long when nobody wants to wait for that: enough for a word of farewell.
HURRIED = 0.2


class Scheduler:
    """One farm's loop between its callers, the core and its nodes.

    Args:
        sizer: Chooses allocations.
        silence: Seconds without a sign of life after which a node ends what it runs.
        show_output: Whether what functions print appears here.
    """

    def __init__(self, sizer: Sizer, *, silence: float, show_output: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.state = FarmState(sizer)
        self.calls: dict[int, Call] = {}
        self.links: dict[str, Link] = {}
        self.specs: dict[str, Node] = {}
        self.functions = FunctionPickles()
        self.numbers = itertools.count(1)
        self.library = SoftwareLibrary(self.numbers)
        self.staging = Staging(self.library, self.numbers)
        self._warming = self.loop.run_in_executor(None, self.library.warm_up)
        self.tally = Tally(self.loop.time())
        self.first_tries: dict[str, asyncio.Future[str | None]] = {}
        self._greeting = Greeting(
            farm=f"{os.getpid()}-{random.SystemRandom().getrandbits(64):016x}",
            hash_seed=random.SystemRandom().randrange(1, 1 << 32),
            silence=silence,
        )
        self.broken: FarmError | None = None  # why it can decide nothing any more
        self.unseen: list[str] = []  # categories of failures that were collected unseen
        self._failed: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        self._show_output = show_output
        self._events: list[event.Event] = []
        self._tick_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._released: dict[str, asyncio.Future[None]] = {}
        self._epochs: dict[str, itertools.count[int]] = {}
        self._idle: asyncio.Future[None] | None = None
        self._unpickled = 0  # bytes, in this turn of the loop
        self._wake: asyncio.TimerHandle | None = None
        self._closing = False
        self._checked = self.loop.time()
        self._checks = self.loop.call_later(CHECK, self._check_nodes)

    # --- calls

    def submit(self, call: Call) -> None:
        """Take a call; its future is resolved in time, whatever happens."""
        if self.broken is not None:
            call.function = None  # it was not held for this call
            self.refuse(call, self.broken)
            return
        self.calls[call.id] = call
        assert call.function is not None
        assert call.arguments is not None
        self.staging.hold(call.function)
        if call.target.request is None or call.arguments.invocations:
            self._spawn(self._prepare(call))
        else:
            self._enter(call, call.target.request)

    def _enter(self, call: Call, request: event.Request) -> None:
        call.entered = True
        call.state = "waiting"
        self._event(event.Submit(call.id, request, self._now()))

    async def _prepare(self, call: Call) -> None:
        """Find out what a call's function needs, and wait for earlier results."""
        try:
            request = await self._request_of(call)
            await self._take_arguments(call)
        except asyncio.CancelledError:
            if call.future is not None:
                call.future.cancel()
            self._discard(call)
            return
        except Exception as exc:  # told through the invocation, whatever analysis met
            self._resolve_error(call, exc)
            self._discard(call)
            return
        if call.id in self.calls:
            self._enter(call, request)

    async def _request_of(self, call: Call) -> event.Request:
        target = call.target
        if target.request is None:
            call.state = "staging"
            function = target.held
            assert function is not None
            ship = any(not node.in_place for node in self.specs.values())
            software = await self.library.find(function, ship=ship)
            if target.request is None:
                target.software = software
                target.request = replace(target.proto, environment=software.id)
                target.held = None
        return target.request

    async def _take_arguments(self, call: Call) -> None:
        """Take the results of earlier invocations among the arguments, as bytes."""
        assert call.arguments is not None
        call.state = "waiting"
        passed = []
        for earlier in call.arguments.invocations:
            try:
                passed.append(await earlier._packed())
            except Exception as exc:
                raise InvocationError(
                    f"{call.category} was not run: its argument, the result of "
                    f"{earlier.category}, is not to be had: {type(exc).__name__}: {exc}"
                ) from exc
        call.passed = passed or None

    def cancel(self, call: Call) -> None:
        """The caller does not want it any more; its process tree is ended."""
        if call.id not in self.calls:
            return
        if call.entered:
            self._event(event.Cancel(call.id, self._now()))
        else:
            self._discard(call)

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
            self._resolve_error(call, outcome.nodeless_error(call))
            self.cancel(call)

    def cancel_streams_of(self, consumer: asyncio.Task[Any] | None) -> None:
        """Cancel the streams whose items this task has been taking."""
        for call in list(self.calls.values()):
            if call.stream is not None and call.stream.consumer is consumer and call.future:
                call.future.cancel()

    def refuse(self, call: Call, error: FarmError) -> None:
        """Fail a call that cannot be submitted."""
        self.calls[call.id] = call
        self._resolve_error(call, error)
        self._discard(call)

    async def wait_idle(self) -> None:
        """Return when nothing is waiting or running, and all that was killed is gone."""
        while self.calls:
            if self._idle is None or self._idle.done():
                self._idle = self.loop.create_future()
            await asyncio.shield(self._idle)

    # --- nodes

    def add_node(self, node: Node) -> asyncio.Future[str | None]:
        """Take a node; the future says how the first try to open it went: why not, or ``None``."""
        first_try: asyncio.Future[str | None] = self.loop.create_future()
        if self.broken is not None:
            first_try.set_result(str(self.broken))
            return first_try
        self.first_tries[node.name] = first_try
        self.specs[node.name] = node
        self._epochs[node.name] = itertools.count()
        self._event(event.AddNode(node.name, self._now()))
        return first_try

    def drop_node(self, name: str) -> None:
        """Let a node go now; what runs there runs again elsewhere."""
        self._event(event.DropNode(name, self._now()))

    async def remove_node(self, name: str, *, drain: bool) -> None:
        """Let a node go, at once or when it is empty; return when it is gone."""
        if self.broken is not None:
            return
        released = self._released.setdefault(name, self.loop.create_future())
        if drain:
            self._event(event.DrainNode(name, self._now()))
        else:
            self.drop_node(name)
        await asyncio.shield(released)

    def forget_soon(self, blob: int) -> None:
        """Drop an object from the nodes; from any thread, since a `Ref` may die in any."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._forget_object, blob)

    def _forget_object(self, blob: int) -> None:
        for link in self.links.values():
            link.forget(blob)

    def tell_unseen(self) -> None:
        """Say in one line which failures nobody looked at."""
        for future in self._failed:
            if getattr(future, "_log_traceback", False):
                future._log_traceback = False
                self.unseen.append(getattr(future, "category", "?"))
        if self.unseen:
            counts = Counter(self.unseen)
            told = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
            log.warning("%d failures that nobody looked at: %s", len(self.unseen), told)

    async def close(self, *, hurry: bool = False) -> None:
        """Close all connections, when everything on the nodes has ended.

        Args:
            hurry: Do not wait for the nodes: they end what they run by themselves.
        """
        self._closing = True
        self._checks.cancel()
        if self._wake is not None:
            self._wake.cancel()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._close_links(HURRIED if hurry else CLOSING)
        except asyncio.CancelledError:
            await self._close_links(HURRIED)
            raise
        finally:
            self.links.clear()
            self._answer_all("the farm was closed before the node was up")

    async def _close_links(self, timeout: float) -> None:
        await asyncio.gather(*(link.close(timeout) for link in self.links.values()))

    def _answer_all(self, reason: str) -> None:
        """Answer those who wait for a node to come or to go: nothing will happen any more."""
        for first_try in self.first_tries.values():
            if not first_try.done():
                first_try.set_result(reason)
        for released in self._released.values():
            if not released.done():
                released.set_result(None)

    async def _connect(self, name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        node = self.specs.get(name)
        if node is None:
            return
        link = Link(node, self, self._greeting, next(self._epochs[name]))
        reason = None
        try:
            await link.open()
        except NodeError as exc:
            reason = str(exc)
        except OSError as exc:
            reason = f"node {name}: {exc}"
        if reason is None:
            assert link.hello is not None
            self.links[name] = link
            self._event(event.NodeUp(name, link.hello.capacity, self._now()))
        else:
            log.warning("%s", reason)
            self._event(event.NodeFailed(name, reason, self._now()))
        first_try = self.first_tries.get(name)
        if first_try is not None and not first_try.done():
            first_try.set_result(reason)

    def _check_nodes(self) -> None:
        """Judge the nodes by this side's own clock: only time in which the loop ran counts."""
        now = self.loop.time()
        elapsed = min(now - self._checked, 2 * CHECK)
        self._checked = now
        for link in list(self.links.values()):
            link.check(elapsed)
        self._checks = self.loop.call_later(CHECK, self._check_nodes)

    # --- the turn of the loop

    def _now(self) -> Seconds:
        return Seconds(self.loop.time())

    def _event(self, happened: event.Event) -> None:
        self._events.append(happened)
        if not self._tick_due:
            self._tick_due = True
            self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        events, self._events = self._events[:EVENTS_AT_ONCE], self._events[EVENTS_AT_ONCE:]
        if self._events:
            self._tick_due = True
            self.loop.call_soon(self._tick)
        if not events or self.broken is not None:
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
        if self._idle is not None and not self.calls and not self._idle.done():
            self._idle.set_result(None)

    def _break(self, cause: Exception) -> None:
        """Fail everything: what the core holds may contradict itself from here on."""
        log.error("the farm cannot go on", exc_info=cause)
        self.broken = FarmError(
            f"the farm cannot go on, since deciding what runs where failed: {cause!r}; if that "
            "is not from a sizer of yours, please report it. Close this farm and make a new one"
        )
        self.broken.__cause__ = cause
        for call in list(self.calls.values()):
            self._resolve_error(call, self.broken)
            self._discard(call)
        self._answer_all(str(self.broken))
        for link in self.links.values():
            self._spawn(link.close(CLOSING))  # ends what runs there

    def _perform(self, action: do.Action) -> None:
        if isinstance(action, do.Start):
            self._start(action)
        elif isinstance(action, do.Complete):
            self._complete(action)
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
        elif isinstance(action, do.Connect):
            self._spawn(self._connect(action.node, action.delay))
        elif isinstance(action, do.WakeAt):
            self._wake_at(action.at)
        elif isinstance(action, do.DrainedNode):
            self._release_node(action.node)

    def _wake_at(self, at: float) -> None:
        if self._wake is not None:
            if self._wake.when() <= at and not self._wake.cancelled():
                return
            self._wake.cancel()
        self._wake = self.loop.call_at(at, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._event(event.Tick(self._now()))

    def _release_node(self, name: str) -> None:
        link = self.links.pop(name, None)
        self.specs.pop(name, None)
        self._spawn(self._let_go(name, link))

    async def _let_go(self, name: str, link: Link | None) -> None:
        if link is not None:
            await link.close(CLOSING)
        released = self._released.pop(name, None)
        if released is not None and not released.done():
            released.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a fault inside the farm, please report it", exc_info=task.exception())

    # --- starting

    def _start(self, action: do.Start) -> None:
        call = self.calls[action.invocation]
        link = self.links[action.node]
        call.begin(action.attempt, action.node, action.allocation)
        call.link = link
        software = call.target.software
        if software is not None and software.id in link.broken:
            self._fail_for_node(call, link)
        elif self.staging.ready(call, link):
            self._run(call, link, action)
        else:
            call.state = "staging"
            self._spawn(self._stage(call, link, action))

    async def _stage(self, call: Call, link: Link, action: do.Start) -> None:
        """Make what the node lacks, then send it and the call."""
        try:
            await self.staging.prepare(call, link)
        except FarmError as exc:
            call.error = exc
            if self._is_current(call, link, action.attempt):
                failed = event.Failed(call.id, action.attempt, Usage(), 0, False, self._now())
                self._event(failed)
            return
        if self._is_current(call, link, action.attempt):
            if call.future is None or call.future.cancelled():
                killed = event.Killed(call.id, action.attempt, Usage(), 0, self._now())
                self._event(killed)
            else:
                self._run(call, link, action)

    def _is_current(self, call: Call, link: Link, attempt: int) -> bool:
        return (
            call.id in self.calls
            and call.attempt == attempt
            and call.link is link
            and self.links.get(link.node.name) is link
        )

    def _run(self, call: Call, link: Link, action: do.Start) -> None:
        arguments = call.arguments
        assert arguments is not None
        assert call.target.software is not None
        call.state = "running"
        self.staging.send(call, link)
        pieces: Sequence[Buffer] = arguments.pieces
        groups = [arguments.lengths]
        if call.passed:
            pieces = [*pieces, *(piece for packed in call.passed for piece in packed.pieces)]
            groups += [packed.lengths for packed in call.passed]
        size = sum(map(sum, groups))
        inline = size <= INLINE
        link.send(
            wire.Run(
                call.id,
                action.attempt,
                action.group,
                action.queued,
                wire.Isolation.REUSE if action.reuse else wire.Isolation.FORK,
                call.target.software.id,
                self.staging.function_blob(call),
                action.allocation,
                size,
                pack_layout(groups),
                self.staging.ref_blobs(call),
                call.target.settings,
                b"".join(pieces) if inline else b"",
            )
        )
        if not inline:
            link.send_bulk(call.id, pieces)

    # --- what the nodes say: link.LinkEvents

    def attempt_ended(self, link: Link, ended: wire.Ended, parts: list[Buffer]) -> None:
        call = self._current(link, ended.invocation, ended.attempt)
        if call is None:
            return
        call.ended = (ended, parts)
        now = self._now()
        name = outcome.name_of(ended)
        call.end(ended.usage, name)
        self.tally.attempt_ended(name, call.attempts[-1][2], ended.usage)
        facts = (call.id, ended.attempt, ended.usage, ended.next)
        if ended.outcome is wire.Outcome.RETURNED:
            self._event(event.Finished(*facts, now))
        elif ended.outcome is wire.Outcome.EXHAUSTED:
            self._event(
                event.Exhausted(
                    call.id, ended.attempt, ended.resource, ended.usage, ended.next, now
                )
            )
        elif ended.outcome is wire.Outcome.KILLED:
            self._event(event.Killed(*facts, now))
        elif ended.outcome is wire.Outcome.CRASHED:
            call.error = outcome.crashed_error(call, ended)
            retry = bool(call.target.retry_on) and isinstance(call.error, call.target.retry_on)
            self._event(event.Failed(*facts, retry, now))
        elif sum(map(len, parts)) > IN_THREAD:
            self._spawn(self._fail_in_thread(call, ended, parts))
        else:
            self._fail(call, ended, load_failure(parts))

    def lane_handed_on(self, link: Link, ended: wire.Ended) -> None:
        call = self._current(link, ended.invocation, ended.attempt)
        if call is not None:
            self._event(event.HandedOn(call.id, ended.attempt, ended.next, self._now()))

    async def _fail_in_thread(self, call: Call, ended: wire.Ended, parts: list[Buffer]) -> None:
        self._fail(call, ended, await asyncio.to_thread(load_failure, parts))

    def _fail(self, call: Call, ended: wire.Ended, failure: RemoteFailure) -> None:
        retry = False
        if ended.outcome is wire.Outcome.RAISED:
            retry = isinstance(failure.exception, call.target.retry_on)
            call.error = outcome.raised_error(call, failure)
        elif ended.outcome is wire.Outcome.UNUSABLE:
            call.error = outcome.unusable_error(call, failure)
        else:
            call.error = outcome.unpicklable_error(call, failure)
        self._event(
            event.Failed(call.id, ended.attempt, ended.usage, ended.next, retry, self._now())
        )

    def attempt_returned(self, link: Link, returned: wire.Returned) -> None:
        call = self._current(link, returned.invocation, returned.attempt)
        if call is not None:
            call.state = "waiting"
            self._event(event.Returned(call.id, returned.attempt, self._now()))

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

    def reading_arrived(self, link: Link, reading: wire.Reading) -> None:
        call = self._current(link, reading.invocation, reading.attempt)
        if call is not None:
            call.usage = reading.usage

    def blob_state(self, link: Link, state: wire.Stored | wire.Lost) -> None:
        self.staging.blob_state(link, state)

    def environment_state(self, link: Link, state: wire.EnvironmentState) -> None:
        if state.problem:
            log.warning("node %s: %s", link.node.name, state.problem)
            if len(self.links) > 1:
                link.fail(f"cannot provide an environment: {state.problem}")
            else:
                self._fail_environment(link, state)
        elif state.notes:
            log.info("node %s: %s", link.node.name, state.notes)

    def _fail_environment(self, link: Link, state: wire.EnvironmentState) -> None:
        """Fail the calls that wait for an environment which the only node cannot have."""
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
        self._event(event.Failed(call.id, call.attempt, Usage(), 0, False, self._now()))

    def batch_ended(self, link: Link) -> None:
        if self._events:
            self._tick()

    def link_lost(self, link: Link, reason: str) -> None:
        name = link.node.name
        if self.links.get(name) is not link:
            return
        del self.links[name]
        for call in self.calls.values():
            if call.link is link and call.attempts and call.attempts[-1][4] == "running":
                call.end(None, "lost")
                self.tally.attempts["lost"] += 1
        if not self._closing:
            log.warning("node %s is lost: %s", name, reason)
            self._event(event.LoseNode(name, reason, self._now()))

    def _current(self, link: Link, invocation: int, attempt: int) -> Call | None:
        """Return the call if this attempt of it is on this connection."""
        call = self.calls.get(invocation)
        if call is None or call.link is not link or call.attempt != attempt:
            return None
        return call

    # --- ends

    def _complete(self, action: do.Complete) -> None:
        call = self.calls[action.invocation]
        if action.outcome is Completion.RETURNED:
            assert call.ended is not None
            self._return(call, call.ended[1])
            return
        if action.outcome is Completion.CANCELLED:
            if call.future is not None:
                call.future.cancel()
        elif action.outcome is Completion.FAILED and call.error is not None:
            self._resolve_error(call, call.error)
        else:
            error = outcome.completion_error(call, action.outcome, action.reason)
            self._resolve_error(call, error)
        self._discard(call)

    def _return(self, call: Call, parts: list[Buffer]) -> None:
        """Resolve a call's future with its result, unpickled if anybody here asks for it."""
        future = call.future
        taken = call.takers is not None
        if taken:
            self._give_bytes(call, Packed.of_parts(parts))
        if future is None or future.done():
            self._discard(call)
        elif taken and not future._callbacks:
            self.tally.returned += 1
            future.set_result(Unopened(parts))
            self._discard(call)
        elif self._too_much(sum(map(len, parts))):
            self._spawn(self._return_in_thread(call, parts))
        else:
            try:
                value = load(parts)
            except Exception as exc:  # whatever a __setstate__ of the user's raises
                self._resolve_error(call, outcome.unloadable_error(call, exc))
            else:
                self.tally.returned += 1
                future.set_result(value)
            self._discard(call)

    def _too_much(self, size: int) -> bool:
        """Return whether a result must not be unpickled in this turn of the loop.

        Many of a middling size that arrive together are as long as a large one.
        """
        if size < BURST:
            return False
        if not self._unpickled:
            self.loop.call_soon(self._new_turn)
        self._unpickled += size
        return self._unpickled > IN_THREAD

    def _new_turn(self) -> None:
        self._unpickled = 0

    async def _return_in_thread(self, call: Call, parts: list[Buffer]) -> None:
        try:
            value = await asyncio.to_thread(load, parts)
        except Exception as exc:  # whatever a __setstate__ of the user's raises
            self._resolve_error(call, outcome.unloadable_error(call, exc))
        else:
            if call.future is not None and not call.future.done():
                self.tally.returned += 1
                call.future.set_result(value)
        self._discard(call)

    def _give_bytes(self, call: Call, packed: Packed) -> None:
        for taker in call.takers or ():
            if not taker.done():
                taker.set_result(packed)
        call.takers = None

    def _refuse_takers(self, call: Call) -> None:
        """Tell the calls that wait for a result that there is none."""
        error = None
        if call.future is not None and call.future.done() and not call.future.cancelled():
            error = call.future.exception()
        for taker in call.takers or ():
            if taker.done():
                continue
            if error is None:
                taker.cancel()
            else:
                taker.set_exception(error)

    def _resolve_error(self, call: Call, error: BaseException) -> None:
        if call.future is not None and not call.future.done():
            self.tally.failed += 1
            self._failed.add(call.future)
            call.future.set_exception(error)

    def _discard(self, call: Call) -> None:
        """Keep nothing of a call but what its invocation shows."""
        if self.calls.pop(call.id, None) is None:
            return
        future = call.future
        call.state = "done"
        self.tally.call_ended(self.loop.time())
        if future is not None and future.cancelled():
            self.tally.cancelled += 1
        if call.takers is not None:
            self._refuse_takers(call)
        if call.function is not None:
            self.staging.release(call.function, self.links)
        if call.stream is not None:
            call.stream.wake()
        call.takers = call.passed = call.arguments = call.future = call.link = None
        call.function = call.error = call.ended = None
        if not self.calls and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


def show(stream: TextIO, call: Call, data: bytes) -> None:
    """Print what a function printed, each line with where it came from."""
    prefix = f"[{call.category} #{call.id} {call.node}] "
    text = data.decode(errors="replace")
    stream.write("".join(f"{prefix}{line}\n" for line in text.splitlines()))
