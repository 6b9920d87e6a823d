"""One call, from its start to a result or an error: what a supervisor and a farm do elsewhere."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Any, TypeVar

import psutil

from .. import outcome
from .._agent.page import BEGUN, ENDED, STARTED
from .._agent.scratch import disk_usage, remove
from .._core.request import Request
from .._monitor.curve import Curve
from .._monitor.limits import (
    DISK_EVERY,
    DISK_SHARE,
    LONG,
    SLOW,
    WITH_CHILDREN,
    exceeded,
    most,
    pause,
    together,
)
from .._wire.messages import Ended, Outcome
from .._wire.payloads import Buffer
from ..call import Call, Target
from ..options import check_options
from ..payload import Arguments, FunctionPickles, category_of, dump_arguments, load, load_failure
from ..resources import Moment, Resources, Source, Usage
from .looks import CoresPeak, Look, Looks
from .process import LoneProcess

T = TypeVar("T")

_UNSTATED = dict.fromkeys(inspect.signature(check_options).parameters)

# A process that has answered and does not exit by itself is ended (s).
_EXIT_WAIT = 1.0

# Looking takes at most a quarter of a processor: 2 ms and more for each look, by psutil.
_SHARE = 3

_pickles = FunctionPickles()


class PolledFuture(Future[T]):
    """A future whose `cancel` also ends a call that runs, and that knows what the call used.

    Attributes:
        usage: What it used; ``None`` until it is over.
    """

    usage: Usage | None = None

    def cancel(self) -> bool:
        """Cancel the call; its processes are ended within a look (50 ms)."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        return True


def begin(
    fn: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any], stated: dict[str, Any]
) -> PolledFuture[T]:
    """Start a call.

    Args:
        fn: What to call.
        args: Its arguments.
        kwargs: Its keyword arguments.
        stated: What it may use, by the names of `Resources`.

    Raises:
        ValueError, TypeError: If a limit makes no sense.
        SerializationError: If something cannot be pickled.
    """
    limits = check_options(**{**_UNSTATED, **stated}).stated
    function = _pickles.pickle(fn).data
    arguments = dump_arguments(args, kwargs)
    future: PolledFuture[T] = PolledFuture()
    category = category_of(fn)
    target = Target(lambda: fn, fn, category, Request(category, limits), "", ())
    call = Call(1, target, None, arguments)
    call.begin(1, f"monitor {os.getpid()}", limits, lambda _: None)  # nothing is predicted
    attempt = _Attempt(call, function, arguments, limits, future)
    threading.Thread(target=attempt.run, name=f"afarm {category}").start()
    return future


class _Attempt:
    """The call while it runs."""

    def __init__(
        self, call: Call, function: bytes, arguments: Arguments, limits: Resources,
        future: PolledFuture[Any],
    ) -> None:  # fmt: skip
        self._call = call
        self._function = function
        self._arguments = arguments
        self._limits = limits
        self._future = future
        self._seen = Usage(processes=0, threads=0)
        self._curve = Curve()
        self._cores = CoresPeak()
        self._rise = 0
        self._looked = self._due = self._disk_due = 0.0
        self._disk = 0
        self._resource = ""  # what it went over

    def run(self) -> None:
        """Run it to its end and resolve the future, whatever happens."""
        error: BaseException | None
        value: object = None
        try:
            folder = tempfile.mkdtemp(prefix="afarm-")
            try:
                ended, parts = self._run(folder)
            finally:
                remove(folder)
            error, value = self._answer(ended, parts)
        except BaseException as exc:  # the thread has no one else to tell
            error = exc
        self._resolve(error, value)

    def _run(self, folder: str) -> tuple[Ended, list[Buffer]]:
        """Run it in a folder of its own; return how it ended, when nothing of it is left."""
        process = LoneProcess(folder, self._function, self._arguments, self._limits)
        looks = Looks(process.pid)
        try:
            self._serve(process, looks)
        finally:
            looks.end(process.wait)
            code = process.close()
        self._disk = max(self._disk, disk_usage(process.scratch))
        return self._conclude(process, looks, code)

    def _serve(self, process: LoneProcess, looks: Looks) -> None:
        """Give the process its call, and look at it until it has answered or must go."""
        given = False
        until = 0.0
        while not self._future.cancelled() and not self._resource:
            now = time.monotonic()
            process.turn(max(0.0, self._due - now) if given else SLOW)
            self._take_output(process)
            if process.ready and not given:
                given = True
                with contextlib.suppress(psutil.Error):  # if it has ended, its exit code tells
                    looks.begin()
                process.give_call()
            if process.exit is not None or process.closed:
                return
            now = time.monotonic()
            if process.ended is not None:
                until = until or now + _EXIT_WAIT
                if now >= until:
                    return
            if given and now >= self._due:
                self._look(process, looks, now)

    def _take_output(self, process: LoneProcess) -> None:
        if process.output:
            self._call.print(bytes(process.output))
            process.output.clear()

    def _look(self, process: LoneProcess, looks: Looks, now: float) -> None:
        slot = process.slot
        if not slot[BEGUN] or slot[ENDED]:
            self._due = now + SLOW
            return
        elapsed = max(0.0, now - int(slot[STARTED]) * 1e-9)
        look = looks.look()
        limit = self._limits.memory
        sure = look.rise if look.processes <= 1 else look.largest
        if limit is not None and sure <= limit < look.rise:
            sure = max(sure, min(look.rise, looks.private()))
        self._look_at_disk(process, now)
        self._cores.add(elapsed, look.user + look.system)
        self._seen = most(self._seen, self._usage(look, sure, elapsed))
        self._curve.add(Moment(elapsed, sure, look.user + look.system, look.processes))
        breach = exceeded(self._limits, self._seen, certain_memory=self._seen.memory_low)
        if breach is not None:
            self._resource = breach.resource
        grown, self._rise = look.rise - self._rise, look.rise
        wait = pause(self._limits, elapsed, look.rise, grown, now - self._looked)
        if look.processes > 1:
            wait = min(wait, WITH_CHILDREN)
        self._looked = now
        took = time.monotonic() - now
        self._due = now + took + max(wait - took, _SHARE * took)

    def _look_at_disk(self, process: LoneProcess, now: float) -> None:
        if self._limits.disk is not None and now >= self._disk_due:
            self._disk = max(self._disk, disk_usage(process.scratch))
            took = time.monotonic() - now
            self._disk_due = now + max(DISK_EVERY, took / DISK_SHARE)

    def _usage(self, look: Look, sure: int, elapsed: float) -> Usage:
        sources = Source.POLL | Source.NO_COUNTERS
        if look.processes > 1:
            sources |= Source.TREE
        return Usage(
            wall_time=elapsed,
            cpu_user=max(0.0, look.user),
            cpu_system=max(0.0, look.system),
            memory=look.rise,
            memory_low=sure,
            memory_resident=look.resident,
            disk=self._disk,
            processes=look.processes,
            threads=look.threads,
            cores_peak=self._cores.most,
            sources=int(sources),
            start=time.time() - elapsed,
        )

    # --- the end

    def _conclude(
        self, process: LoneProcess, looks: Looks, code: int
    ) -> tuple[Ended, list[Buffer]]:
        """Return how it ended and what it brought."""
        self._take_output(process)
        if process.ended is None or self._resource:
            ended = Ended(
                1, 1, Outcome.EXHAUSTED if self._resource else Outcome.CRASHED, code, 0, 0,
                replace(self._seen, exit=code), b"", self._resource, b"", b"",
            )  # fmt: skip
            parts: list[Buffer] = []
        else:
            ended, parts = process.ended
            ended = replace(ended, usage=self._whole(ended.usage, looks), next=0)
            breach = exceeded(self._limits, ended.usage, certain_memory=ended.usage.memory_low)
            if breach is not None:
                ended = replace(ended, outcome=Outcome.EXHAUSTED, resource=breach.resource)
        usage = replace(ended.usage, disk=self._disk)
        if usage.wall_time >= LONG or ended.outcome is Outcome.EXHAUSTED:
            usage = replace(usage, curve=tuple(self._curve.moments()))
        return replace(ended, usage=usage), parts

    def _whole(self, own: Usage, looks: Looks) -> Usage:
        """Return what the process says of itself, and what was seen of it from outside."""
        own = replace(
            own,
            memory=max(0, own.memory - looks.base),
            memory_low=max(0, own.memory_low - looks.base),
            memory_resident=max(own.memory_resident, looks.base),
        )
        usage = together(own, self._seen, 0.0)
        return replace(
            usage,
            # Not one on top of the other: both are of the process itself.
            memory=max(own.memory, self._seen.memory, usage.memory_low),
            exit=own.exit or 0,
            cores_peak=max(own.cores_peak, self._cores.most),
        )

    def _answer(self, ended: Ended, parts: list[Buffer]) -> tuple[BaseException | None, object]:
        """Return the error or the value that the caller gets."""
        call = self._call
        call.ended = ended, parts
        call.end(ended.usage, outcome.name_of(ended))
        self._future.usage = call.usage
        if ended.outcome is Outcome.RETURNED:
            try:
                return None, load(parts)
            except Exception as exc:  # whatever a __setstate__ of the user's raises
                return outcome.unloadable_error(call, exc), None
        if ended.outcome is Outcome.EXHAUSTED:
            return outcome.exhausted_error(call, ended.resource, ""), None
        if ended.outcome is Outcome.CRASHED:
            return outcome.crashed_error(call, ended), None
        failure = load_failure(parts)
        if ended.outcome is Outcome.RAISED:
            return outcome.raised_error(call, failure), None
        if ended.outcome is Outcome.UNUSABLE:
            return outcome.unusable_error(call, failure), None
        return outcome.unpicklable_error(call, failure), None

    def _resolve(self, error: BaseException | None, value: object) -> None:
        try:
            if error is not None:
                self._future.set_exception(error)
            else:
                self._future.set_result(value)
        except InvalidStateError:
            if not self._future.cancelled():
                raise
