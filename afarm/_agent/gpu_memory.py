"""The agent's side of the gauge: how much GPU memory attempts use, as far as it has told."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from .._wire.frames import Frame
from .._wire.messages import Details, Message, decode, encode
from ..errors import RemoteProtocolError
from . import internal
from .calls import Attempt
from .channel import Channel
from .loop import Loop
from .spawn import spawn


class GpuMemory:
    """The gauge, started when the first attempt with GPUs begins. Nothing waits for it.

    Args:
        loop: The agent's loop.
        tell: Takes what the farm is to hear.

    Attributes:
        pid: The gauge's process; 0 while there is none.
    """

    def __init__(self, loop: Loop, tell: Callable[[Message], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._channel: Channel | None = None
        self._peaks: dict[int, bytes] = {}  # of the invocations that it looks at
        self.pid = 0

    def begin(self, attempt: Attempt, process: int) -> None:
        """An attempt that may have GPUs begins in a process."""
        if not attempt.devices or attempt.run.invocation in self._peaks:
            return
        if self._channel is None:
            self._channel = self._start()
        self._peaks[attempt.run.invocation] = b""
        self._send(internal.Weigh(attempt.run.invocation, process))

    def end(self, attempt: Attempt) -> None:
        """Tell the farm what an attempt used that is over; its `Ended` comes next."""
        run = attempt.run
        if run.invocation not in self._peaks:
            return
        self._read()  # what it has said by now counts
        peaks = self._peaks.pop(run.invocation)
        self._send(internal.Weigh(run.invocation, 0))
        if peaks:
            self._tell(Details(run.invocation, run.attempt, peaks, b""))

    def _send(self, message: Message) -> None:
        channel = self._channel
        assert channel is not None
        channel.send(encode(message))
        if not channel.closed:
            self._loop.touch(channel)

    def _start(self) -> Channel:
        theirs, ours = socket.socketpair()
        package: Any = sys.modules[__name__.partition(".")[0]]
        argv = [sys.executable, "-I", "-S", "-c", package.__first_line__, "gauge"]
        self.pid = spawn(argv, dict(os.environ), (theirs.fileno(), theirs.fileno(), 2))
        theirs.close()
        channel = Channel(ours, frozenset({internal.Weighed.kind}))
        channel.send(package.__bootstrap__)
        self._loop.read(ours.fileno(), self._read)
        return channel

    def _read(self) -> None:
        channel = self._channel
        assert channel is not None
        if channel.closed:
            return
        try:
            found = channel.receive()
        except RemoteProtocolError:
            found = None
        if found is None:
            # There is no NVML, or it has failed; it would again.
            self._loop.forget(channel.sock.fileno())
            channel.close()
            self.pid = 0
            return
        for each in found:
            message = decode(each) if isinstance(each, Frame) else None
            if isinstance(message, internal.Weighed) and message.invocation in self._peaks:
                self._peaks[message.invocation] = message.body
