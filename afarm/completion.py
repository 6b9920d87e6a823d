"""From the end of an attempt to a resolved future.

What an attempt brought, a result or an exception, is kept with its call until the core has
said what that means: another attempt, or the end.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from . import outcome
from ._core import actions as do
from ._core import events as event
from ._core.actions import Completion
from ._wire import messages as wire
from ._wire.payloads import Buffer
from .call import IN_THREAD, Call, Unopened
from .payload import Packed, PickledFunction, RemoteFailure, load, load_failure
from .recorder import Recorder
from .tally import Tally
from .turns import Turns

log = logging.getLogger("afarm")

# Results below this are not counted among what one turn of the loop unpickles: a thread
# would take longer to begin than they take.
BURST = 8 << 10


class Completions:
    """The calls of one farm that are not over, and how each comes to be.

    Args:
        turns: Where events go.
        release: Told that a call needs its function no more.
        recorder: Who keeps a record, if anybody does.

    Attributes:
        calls: What is not over, by number.
        tally: Counts what ended.
        unseen: Categories of failures that were collected unseen.
    """

    def __init__(
        self,
        turns: Turns,
        release: Callable[[PickledFunction], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.calls: dict[int, Call] = {}
        self.tally = Tally(turns.loop.time())
        self.unseen: list[str] = []
        self._turns = turns
        self._release = release
        self._recorder = recorder
        self._failed: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        self._idle: asyncio.Future[None] | None = None
        self._unpickled = 0  # bytes, in this turn of the loop

    async def wait_idle(self) -> None:
        """Return when nothing is waiting or running, and all that was killed is gone."""
        while self.calls:
            if self._idle is None or self._idle.done():
                self._idle = self._turns.loop.create_future()
            await asyncio.shield(self._idle)

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

    # --- the end of an attempt

    def attempt_ended(self, call: Call, ended: wire.Ended, parts: list[Buffer]) -> None:
        """Keep what an attempt brought, and tell the core how it ended."""
        self._attempt_over(call, ended, parts)
        now = self._turns.now()
        facts = (call.id, ended.attempt, ended.usage, ended.next)
        if ended.outcome is wire.Outcome.RETURNED:
            self._turns.post(event.Finished(*facts, now))
        elif ended.outcome is wire.Outcome.EXHAUSTED:
            self._turns.post(
                event.Exhausted(
                    call.id, ended.attempt, ended.resource, ended.usage, ended.next, now
                )
            )
        elif ended.outcome is wire.Outcome.KILLED:
            self._turns.post(event.Killed(*facts, now))
        elif ended.outcome is wire.Outcome.CRASHED:
            call.error = outcome.crashed_error(call, ended)
            retry = bool(call.target.retry_on) and isinstance(call.error, call.target.retry_on)
            self._turns.post(event.Failed(*facts, retry, now))
        elif sum(map(len, parts)) > IN_THREAD:
            self._turns.spawn(self._fail_in_thread(call, ended, parts))
        else:
            self._attempt_failed(call, ended, load_failure(parts))

    def _attempt_over(self, call: Call, ended: wire.Ended, parts: list[Buffer]) -> None:
        call.ended = (ended, parts)
        name = outcome.name_of(ended)
        call.end(ended.usage, name)
        self.tally.attempt_ended(name, call.attempts[-1][2], ended.usage)

    def result_lost(self, call: Call, ended: wire.Ended, reason: str) -> None:
        """Try a call again whose result did not get here, as one whose node was lost.

        The function had returned. What ended its process may have been another call, which
        has the lane by then.
        """
        self._attempt_over(call, ended, [])
        call.error = outcome.result_lost_error(call, ended, reason)
        now = self._turns.now()
        self._turns.post(event.Failed(call.id, ended.attempt, ended.usage, ended.next, True, now))

    async def _fail_in_thread(self, call: Call, ended: wire.Ended, parts: list[Buffer]) -> None:
        self._attempt_failed(call, ended, await asyncio.to_thread(load_failure, parts))

    def _attempt_failed(self, call: Call, ended: wire.Ended, failure: RemoteFailure) -> None:
        retry = False
        if ended.outcome is wire.Outcome.RAISED:
            retry = isinstance(failure.exception, call.target.retry_on)
            call.error = outcome.raised_error(call, failure)
        elif ended.outcome is wire.Outcome.UNUSABLE:
            call.error = outcome.unusable_error(call, failure)
        else:
            call.error = outcome.unpicklable_error(call, failure)
        now = self._turns.now()
        self._turns.post(event.Failed(call.id, ended.attempt, ended.usage, ended.next, retry, now))

    # --- the end of a call

    def complete(self, action: do.Complete) -> None:
        """End a call as the core says."""
        call = self.calls[action.invocation]
        if action.outcome is Completion.RETURNED:
            assert call.ended is not None
            self._return(call, call.ended[1])
            return
        if action.outcome is Completion.CANCELLED:
            if call.future is not None:
                call.future.cancel()
        elif action.outcome is Completion.FAILED and call.error is not None:
            self.resolve_error(call, call.error)
        else:
            error = outcome.completion_error(call, action.outcome, action.reason)
            self.resolve_error(call, error)
        self.discard(call)

    def _return(self, call: Call, parts: list[Buffer]) -> None:
        """Resolve a call's future with its result, unpickled if anybody here asks for it."""
        if call.memo is not None and not call.memo.recalled:
            self._turns.spawn(self._keep(call, parts))
        else:
            self._resolve(call, parts)

    async def _keep(self, call: Call, parts: list[Buffer]) -> None:
        """Keep a result before its caller can change it."""
        assert self._recorder is not None
        await self._recorder.keep(call, parts)
        self._resolve(call, parts)

    async def recall(self, call: Call, parts: Sequence[Buffer]) -> bool:
        """Resolve a call with an earlier one's result; return whether that can be unpickled."""
        try:
            value = await asyncio.to_thread(load, parts)
        except Exception as exc:  # whatever a __setstate__ of the user's raises
            log.warning("%s is run again: its result cannot be unpickled: %r", call.category, exc)
            return False
        if call.memo is None:  # cancelled meanwhile
            return True
        call.memo.recalled = True
        if call.takers is not None:
            self._give_bytes(call, Packed.of_parts(parts))
        if call.future is not None and not call.future.done():
            self.tally.returned += 1
            call.future.set_result(value)
        self.discard(call)
        return True

    def _resolve(self, call: Call, parts: list[Buffer]) -> None:
        """Give a result to those who want it."""
        future = call.future
        taken = call.takers is not None
        if taken:
            self._give_bytes(call, Packed.of_parts(parts))
        if future is None or future.done():
            self.discard(call)
        elif taken and not future._callbacks:
            self.tally.returned += 1
            future.set_result(Unopened(parts))
            self.discard(call)
        elif self._too_much(sum(map(len, parts))):
            self._turns.spawn(self._return_in_thread(call, parts))
        else:
            try:
                value = load(parts)
            except Exception as exc:  # whatever a __setstate__ of the user's raises
                self.resolve_error(call, outcome.unloadable_error(call, exc))
            else:
                self.tally.returned += 1
                future.set_result(value)
            self.discard(call)

    def _too_much(self, size: int) -> bool:
        """Return whether a result must not be unpickled in this turn of the loop.

        Many of a middling size that arrive together are as long as a large one.
        """
        if size < BURST:
            return False
        if not self._unpickled:
            self._turns.loop.call_soon(self._new_turn)
        self._unpickled += size
        return self._unpickled > IN_THREAD

    def _new_turn(self) -> None:
        self._unpickled = 0

    async def _return_in_thread(self, call: Call, parts: list[Buffer]) -> None:
        try:
            value = await asyncio.to_thread(load, parts)
        except Exception as exc:  # whatever a __setstate__ of the user's raises
            self.resolve_error(call, outcome.unloadable_error(call, exc))
        else:
            if call.future is not None and not call.future.done():
                self.tally.returned += 1
                call.future.set_result(value)
        self.discard(call)

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

    def fail(self, call: Call, error: BaseException) -> None:
        """End a call with an error."""
        self.resolve_error(call, error)
        self.discard(call)

    def resolve_error(self, call: Call, error: BaseException) -> None:
        """Tell the caller of an error; whatever runs of the call goes on."""
        if call.future is not None and not call.future.done():
            self.tally.failed += 1
            self._failed.add(call.future)
            call.future.set_exception(error)

    def discard(self, call: Call) -> None:
        """Keep nothing of a call but what its invocation shows."""
        if self.calls.pop(call.id, None) is None:
            return
        future = call.future
        call.state = "done"
        self.tally.call_ended(self._turns.loop.time())
        if self._recorder is not None:
            self._recorder.ended(call)
        if future is not None and future.cancelled():
            self.tally.cancelled += 1
        if call.takers is not None:
            self._refuse_takers(call)
        if call.function is not None:
            self._release(call.function)
        if call.stream is not None:
            call.stream.wake()
        call.takers = call.passed = call.arguments = call.future = call.link = None
        call.function = call.error = call.ended = call.memo = None
        if not self.calls and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
