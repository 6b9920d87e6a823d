"""A worker: the process that runs invocations, one after the other.

It is forked from its supervisor with everything ready, reads `Run` from its socket and
answers with `Ended`. It measures itself; what it cannot see (its children, its own
death) the supervisor adds.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._monitor.meter import Finding, Meter, Seen
from .._wire.frames import Frame
from .._wire.messages import Ended, Isolation, More, Outcome, Returned, Run, decode, encode
from .._wire.payloads import INLINE, pack_layout
from ..resources import Usage
from . import restore, system
from .hook import hook
from .inbox import Inbox, wait_drained
from .internal import Devices, Flag, Function, Imported
from .page import (
    ANONYMOUS,
    BEGUN,
    CLEAN,
    ENDED,
    FILE_HIGH,
    FILE_LAST,
    FILE_LOW,
    HIGH_WATER,
    RESIDENT,
    SETTLED,
    STARTED,
    SYSTEM,
    USER,
    WATCHED,
    WITHDRAWN_FROM,
    WITHDRAWN_TO,
)
from .prepared import read_by_this_process
from .results import Payload, dump_failure, dump_result
from .scratch import Scratch, lay
from .spawning import Spawning
from .streams import Stream, UnpicklableItem
from .values import Disconnected, Values

if TYPE_CHECKING:
    from .._monitor.plain_meter import PlainMeter

_NOTHING = Payload([], [])
_TREE, _PRINTED, _LEAVING = int(Flag.TREE), int(Flag.PRINTED), int(Flag.LEAVING)


class Worker:
    """Serves the calls that arrive on a socket.

    Args:
        sock: The socket to the agent, blocking.
        slot: The worker's words in the shared page.
        calls: The folder for scratch directories.
        blobs: The folder where the agent puts large blobs.
        name: Of the scratch directory.
        spawning: Tells the supervisor of processes that are about to be started.
        meter: What measures calls.
    """

    def __init__(
        self, sock: socket.socket, slot: memoryview, calls: str, blobs: str, name: str,
        spawning: Spawning, meter: Meter | PlainMeter,
    ) -> None:  # fmt: skip
        self._spawning = spawning
        self._inbox = Inbox(sock)
        self._slot = slot
        self._values = Values(self._inbox, blobs)
        self._scratch = Scratch(calls, name)
        self._meter = meter
        self._state: restore.State | None = None
        self._sequence = 0
        self._seeded = False
        self._modules = len(sys.modules)

    def serve(self) -> None:
        """Serve calls until the socket ends or this process is to be replaced."""
        while (frame := self._inbox.receive()) is not None:
            if frame.kind == Run.kind:
                run = decode(frame)
                assert isinstance(run, Run)
                if not self._serve_run(run):
                    return
            elif frame.kind == Function.kind:
                self._values.add_function(frame.subject, frame.body)
            elif frame.kind == Devices.kind:
                devices = decode(frame)
                assert isinstance(devices, Devices)
                os.environ["CUDA_VISIBLE_DEVICES"] = devices.visible

    def _serve_run(self, run: Run) -> bool:
        """Run one call and answer; return whether this worker serves on."""
        slot = self._slot
        self._sequence += 1
        slot[BEGUN] = self._sequence
        # After saying that it begins: see `page`.
        if slot[WITHDRAWN_FROM] <= self._sequence <= slot[WITHDRAWN_TO]:
            # The agent may have sent the same attempt here again meanwhile, so this
            # names the call by its number among this worker's.
            self._inbox.send(encode(Returned(run.invocation, self._sequence)))
            return True
        reuse = run.isolation is Isolation.REUSE
        if reuse and self._state is None:
            # Copies that the user's code does not know of, to put 1 and 2 back from.
            streams = (system.move_high(os.dup(1)), system.move_high(os.dup(2)))
            self._state = restore.State(_own_status(), streams)
        try:
            call = _Call(run, self)
            call.perform()
        except Disconnected:
            return False
        finding = call.finding
        if not finding.had_children and finding.status.threads == 1:
            slot[CLEAN] = self._sequence
        slot[ENDED] = self._sequence
        return self._answer(call, reuse)

    def _answer(self, call: _Call, reuse: bool) -> bool:
        """Send the outcome and put this process in order; return whether it serves on."""
        finding = call.finding
        leaving = not reuse
        # Numbers: combining members of an enumeration takes 2 us each.
        flags = (_TREE if finding.had_children else 0) | (_PRINTED if finding.wrote else 0)
        left = 0
        if reuse and self._state is not None:
            leaving = self._has_left_something(finding)
            if not leaving:
                left = self._scratch.leave()
                if finding.wrote:
                    for stream in self._state.streams:
                        wait_drained(stream)
        if leaving:
            flags |= _LEAVING
        if not reuse and len(sys.modules) > self._modules:
            self._tell_imported()
        run, payload = call.run, call.payload
        inline = payload.size <= INLINE
        usage = finding.usage if not left else _with_disk(finding.usage, left)
        self._inbox.send(
            encode(
                Ended(
                    run.invocation, run.attempt, call.outcome, call.exit, flags, payload.size,
                    usage, pack_layout([payload.lengths]) if payload.size else b"", "", b"",
                    b"".join(payload.parts) if inline else b"",
                )
            )
        )  # fmt: skip
        if not inline:
            self._inbox.send_bulk(run.invocation, payload.parts)
        if leaving:
            return False
        if flags & _TREE:
            self._wait_settled()
        # Whoever waits for the result need not wait for this. If something cannot be put
        # back as it was, this process ends, between two calls.
        assert self._state is not None
        self._state.restore(finding.text)
        restore.seed_generators()
        self._seeded = True
        return True

    def _seen(self) -> Seen | None:
        """Return what the supervisor has seen of the present call."""
        slot = self._slot
        if slot[WATCHED] != self._sequence:
            return None
        seen = Seen(
            int(slot[HIGH_WATER]), int(slot[FILE_LOW]), int(slot[FILE_HIGH]), int(slot[FILE_LAST])
        )
        # It may have been at it, or have gone on to something new, meanwhile.
        return seen if slot[WATCHED] == self._sequence else None

    def _tell_imported(self) -> None:
        """Let the modules that this call imported be read ahead of the next worker's fork."""
        names = read_by_this_process(self._modules)
        if names:
            self._inbox.send(encode(Imported(0, "\n".join(names))))

    def _wait_settled(self) -> None:
        """Wait until the supervisor has ended the orphans of a call that started processes.

        A call that began meanwhile could not be told from it.
        """
        pause = 50e-6
        while self._slot[SETTLED] < self._sequence:
            time.sleep(pause)
            pause = min(2 * pause, 1e-3)

    def _has_left_something(self, finding: Finding) -> bool:
        """Return whether the call left something, so that this process must be replaced."""
        assert self._state is not None
        try:
            if self._state.left(finding.text):
                return True
        except Exception:  # what cannot be put back as it was is left behind with the process
            return True
        if finding.had_children and _meter_has_children():
            return True
        if self._meter.grown(finding.status) > restore.LEFT_MEMORY:
            gc.collect()
            system.trim_heap()
            return self._meter.grown() > restore.LEFT_MEMORY
        return False


def _meter_has_children() -> bool:
    from .._monitor.meter import has_children

    return has_children()


def _own_status() -> bytes:
    try:
        with open("/proc/self/status", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _with_disk(usage: Usage, disk: int) -> Usage:
    from dataclasses import replace

    return replace(usage, disk=disk)


class _Call:
    """One call: what it is given, and what became of it."""

    def __init__(self, run: Run, worker: Worker) -> None:
        self.run = run
        self._worker = worker
        self.outcome = Outcome.RETURNED
        self.payload = _NOTHING
        self.exit = 0
        self.finding: Finding
        settings = json.loads(run.settings) if run.settings else {}
        self._environment: dict[str, str] = settings.get("env") or {}
        self._cwd: str | None = settings.get("cwd")
        self._stream: int | None = settings.get("stream")
        self._files: dict[str, int] = settings.get("files") or {}
        self._trace: bool = settings.get("trace", False)

    def perform(self) -> None:
        """Run the call; afterwards `outcome`, `payload` and `finding` say what became of it.

        Raises:
            Disconnected: If the agent goes away meanwhile.
        """
        worker = self._worker
        groups = worker._values.take(self.run)
        if hook.wanted:
            hook.begin(self.run, worker._inbox)
        meter = worker._meter
        slot = worker._slot
        meter.begin(again=self.run.isolation is Isolation.REUSE)
        slot[RESIDENT] = meter.resident
        slot[ANONYMOUS] = meter.anonymous
        slot[USER], slot[SYSTEM] = meter.processor_ns
        slot[STARTED] = time.monotonic_ns()
        if self._trace:
            worker._spawning.expect(worker._sequence)
        took = 0.0
        try:
            function, args, kwargs = self._load(groups)
        except BaseException as exc:  # whatever importing and unpickling the user's things raise
            self._fail(Outcome.UNUSABLE, exc)
        else:
            del groups
            before = time.perf_counter()
            try:
                value = self._call(function, args, kwargs)
            except Disconnected:
                raise
            except UnpicklableItem as exc:
                took = time.perf_counter() - before
                self.outcome = Outcome.UNPICKLABLE
                self.payload = dump_failure(exc.__cause__ or exc, str(exc))
            except SystemExit as exc:
                took = time.perf_counter() - before
                self.outcome = Outcome.CRASHED
                self.exit = _exit_code(exc)
            except BaseException as exc:  # the function's own; also KeyboardInterrupt
                took = time.perf_counter() - before
                self._fail(Outcome.RAISED, exc)
            else:
                took = time.perf_counter() - before
                args = kwargs = None  # type: ignore[assignment]
                self._return(value)
        if hook.wanted:
            hook.end()
        _flush_streams()
        exit = self.exit if self.outcome is Outcome.CRASHED else None
        self.finding = meter.finish(took, exit, worker._seen())

    def _load(self, groups: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        worker = self._worker
        worker._scratch.enter()
        for name, blob in self._files.items():
            lay(name, worker._values.path(blob))
        if self._environment:
            os.environ.update(self._environment)
        if self._cwd:
            os.chdir(os.path.expanduser(self._cwd))
        if not worker._seeded:
            restore.seed_generators()
        function = worker._values.function(self.run.function)
        args, kwargs = worker._values.arguments(groups)
        return function, args, kwargs

    def _call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = function(*args, **kwargs)
        if self._stream is not None:
            run = self.run
            stream = Stream(run.invocation, run.attempt, self._stream, self._worker._inbox)
            return stream.send_all(value)
        if inspect.iscoroutine(value):
            import asyncio

            return asyncio.run(value)
        return value

    def _return(self, value: object) -> None:
        try:
            self.payload = dump_result(value)
        except BaseException as exc:  # whatever a __reduce__ of the user's raises
            self.outcome = Outcome.UNPICKLABLE
            self.payload = dump_failure(exc, f"the result, of type {type(value).__qualname__}")

    def _fail(self, outcome: Outcome, exc: BaseException) -> None:
        self.outcome = outcome
        self.payload = dump_failure(exc)


def _exit_code(exc: SystemExit) -> int:
    """Return the exit code that ``sys.exit`` asked for, as the interpreter would."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    print(exc.code, file=sys.stderr)
    return 1


def _flush_streams() -> None:
    """Write out what Python and C have buffered; the user's code may have closed the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  # contextlib.suppress takes 1 us, for each call twice
            stream.flush()
        except Exception:  # closed, or something of the user's
            pass
    system.flush_c_streams()


def run_worker(
    sock: socket.socket, slot: memoryview, calls: str, blobs: str, name: str, spawning: Spawning,
    meter: PlainMeter | None = None,
) -> None:  # fmt: skip
    """Serve calls, then end this process. For the child of a fork: never returns."""
    code = 0
    try:
        signal.set_wakeup_fd(-1)
        meter_of_calls = meter or Meter(system.move_high)
        Worker(sock, slot, calls, blobs, name, spawning, meter_of_calls).serve()
    except BaseException:  # the supervisor must not go on in this process, whatever happens
        code = 70
        with contextlib.suppress(Exception):
            sys.excepthook(*sys.exc_info())
    finally:
        _flush_streams()
        os._exit(code)


__all__ = ["Frame", "More", "Worker", "run_worker"]
