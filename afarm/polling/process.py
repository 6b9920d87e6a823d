"""The process of one call: started, given its call, heard to its end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from .._agent import page
from .._agent.internal import Imported, Ready
from .._agent.variables import variables_for
from .._wire.frames import BULK, BULK_LIMIT, Fragment, FrameReader, pack_header
from .._wire.messages import Ended, Isolation, Run, decode, encode
from .._wire.payloads import INLINE, Buffer, Gather, pack_layout, slices, unpack_layout
from ..errors import RemoteProtocolError
from ..resources import Resources
from ..transport import bootstrap

if TYPE_CHECKING:
    from ..payload import Arguments

_READ = 1 << 16
_FUNCTION = 1
_INVOCATION = 1

# Kills what is left of a call's process group when this process dies, which no platform but
# Linux does of itself. It is told of the call's end by a line.
_GUARD = 'read -r line || kill -9 -- "-$0"'


class LoneProcess:
    """A fresh interpreter that runs one call (`_agent.lone`), and leads a session of its own.

    Args:
        folder: An empty folder for it, removed by who made it.
        function: The pickled function.
        arguments: The pickled arguments.
        limits: What the call may use.

    Attributes:
        slot: Its words in the shared page.
        ready: Whether it waits for its call, or has begun it.
        ended: How its call ended, with its payload in parts; ``None`` until all of it is there.
        output: What it printed since this was last emptied.
        closed: Whether nothing more can come from it.
    """

    def __init__(
        self, folder: str, function: bytes, arguments: Arguments, limits: Resources
    ) -> None:
        self.ready = False
        self.ended: tuple[Ended, list[Buffer]] | None = None
        self.output = bytearray()
        self.closed = False
        self._calls = os.path.join(folder, "calls")
        for name in ("calls", "blobs"):
            os.mkdir(os.path.join(folder, name), 0o700)
        with open(os.path.join(folder, "blobs", str(_FUNCTION)), "wb") as file:
            file.write(function)
        with open(os.path.join(folder, "page"), "w+b") as shared:
            shared.truncate(page.SIZE)
            self.slot = page.Page(os.dup(shared.fileno())).slot(0)
        self._arguments = arguments
        self._limits = limits
        self._reader = FrameReader(frozenset({Ready.kind, Ended.kind, Imported.kind}))
        self._coming: tuple[Ended, Gather] | None = None
        self._queue: deque[memoryview] = deque()
        self._selector = selectors.DefaultSelector()
        self._start(folder)

    def _start(self, folder: str) -> None:
        self._sock, theirs = socket.socketpair()
        self._pipe, writer = os.pipe()
        program = bootstrap.near_payload()
        told = {"path": [os.path.abspath(each) for each in sys.path], "folder": folder}
        line = bootstrap.first_line(len(program))
        argv = [sys.executable, "-s", "-P", "-c", line, "lone", json.dumps(told)]
        threads = max(1, int(self._limits.cores or 1))
        try:
            self._process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=writer, stderr=writer, start_new_session=True,
                env=variables_for(os.environ, threads, random.getrandbits(32)),
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(writer)
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, str(self.pid)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        for descriptor in (self._sock.fileno(), self._pipe):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._send(program)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def scratch(self) -> str:
        """The folder with the call's directory."""
        return self._calls

    @property
    def exit(self) -> int | None:
        """How it exited, minus the signal's number if one ended it; ``None`` while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Wait for its end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def give_call(self) -> None:
        """Let it run its call."""
        arguments = self._arguments
        parts = arguments.parts()
        inline = arguments.size <= INLINE
        run = Run(
            _INVOCATION, 1, 1, False, False, Isolation.FORK, 0, _FUNCTION, self._limits,
            arguments.size, pack_layout([arguments.lengths]), b"", "",
            b"".join(parts) if inline else b"",
        )  # fmt: skip
        self._send(encode(run))
        for part in [] if inline else parts:
            view = memoryview(part).cast("B")
            for at in range(0, len(view), BULK_LIMIT):
                piece = view[at : at + BULK_LIMIT]
                self._send(pack_header(BULK, _INVOCATION, len(piece)), piece)

    def _send(self, *parts: Buffer) -> None:
        self._queue.extend(memoryview(part) for part in parts)
        self._selector.modify(self._sock.fileno(), selectors.EVENT_READ | selectors.EVENT_WRITE)

    def turn(self, seconds: float) -> None:
        """Read and write for at most so long, or until something has happened."""
        for key, events in self._selector.select(max(0.0, seconds)):
            if key.fd == self._pipe:
                self._read_output()
            else:
                if events & selectors.EVENT_WRITE:
                    self._write()
                if events & selectors.EVENT_READ:
                    self._read()

    def _write(self) -> None:
        while self._queue:
            try:
                count = self._sock.send(self._queue[0])
            except BlockingIOError:
                return
            except OSError:  # it is gone, which reading will tell
                self._queue.clear()
                break
            left = self._queue[0][count:]
            if len(left):
                self._queue[0] = left
            else:
                self._queue.popleft()
        if not self.closed:
            self._selector.modify(self._sock.fileno(), selectors.EVENT_READ)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            found = self._reader.feed(data) if data else []
            if not data:
                self._close()
            for each in found:
                if isinstance(each, Fragment):
                    self._take_bulk(each)
                else:
                    self._take(decode(each))
        except RemoteProtocolError:  # the call has written into our socket: nothing can be trusted
            self._close()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._sock.fileno())

    def _take(self, message: Any) -> None:
        if isinstance(message, Ready):
            self.ready = True
        elif isinstance(message, Ended):
            groups = unpack_layout(message.layout, message.size) if message.size else [[]]
            if message.size > len(message.body):
                self._coming = message, Gather(groups)
            else:
                self.ended = message, list(slices(message.body, groups)[0])

    def _take_bulk(self, fragment: Fragment) -> None:
        if self._coming is None:
            raise RemoteProtocolError("bulk before the end that announces it")
        ended, gather = self._coming
        gather.feed(fragment.data)
        if gather.complete:
            self.ended = ended, list(gather.groups[0])

    def _read_output(self) -> None:
        try:
            data = os.read(self._pipe, _READ)
        except BlockingIOError:
            return
        if data:
            self.output += data
        else:
            self._selector.unregister(self._pipe)

    def close(self) -> int:
        """Wait for its end, which must have come; take what it has left; return its exit code."""
        code = self._process.wait()
        self._queue.clear()
        while self._selector.get_map() and self._selector.select(0):
            self.turn(0)
        assert self._guard.stdin is not None
        self._guard.communicate(b"over\n")
        self._selector.close()
        self._sock.close()
        os.close(self._pipe)
        return code
