"""The agent's end of a socket to a process of its own: never blocks."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable

from .._wire.frames import Fragment, Frame, FrameReader
from . import system

# Read at once. More would let one busy worker keep the others waiting.
READ = 1 << 18

# Buffers given to one writev; Linux takes 1024.
_VECTOR = 512

# What a channel has read lies here until the next one reads: allocating room for each
# read takes longer than the read of a short message.
_room = bytearray(READ)
_view = memoryview(_room)


class Writer:
    """Bytes on their way into a descriptor that does not block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: deque[bytes | memoryview] = deque()
        self.queued = 0

    def send(self, data: bytes | memoryview) -> None:
        """Queue some bytes."""
        self._queue.append(data)
        self.queued += len(data)

    def send_now(self, header: bytes, data: memoryview) -> None:
        """Write as much as the descriptor takes at once; queue a copy of the rest.

        Raises:
            OSError: If the other end is gone.
        """
        written = 0
        if not self._queue:
            with contextlib.suppress(BlockingIOError):
                written = os.writev(self._descriptor, (header, data))
        if written < len(header):
            self.send(header[written:])
            written = len(header)
        if written < len(header) + len(data):
            self.send(bytes(data[written - len(header) :]))

    def flush(self) -> bool:
        """Write what the descriptor takes; return whether all of it is written.

        Raises:
            OSError: If the other end is gone.
        """
        queue = self._queue
        while queue:
            if len(queue) == 1:
                pieces = [queue[0]]
            else:
                pieces = [queue[n] for n in range(min(len(queue), _VECTOR))]
            try:
                count = os.writev(self._descriptor, pieces)
            except BlockingIOError:
                return False
            self.queued -= count
            for piece in pieces:
                if count < len(piece):
                    if count:
                        queue[0] = memoryview(piece)[count:]
                    break
                count -= len(piece)
                queue.popleft()
        return True


class Channel:
    """A socket to a template, a supervisor or a worker.

    Args:
        sock: The socket; made non-blocking.
        kinds: The messages understood.
    """

    def __init__(self, sock: socket.socket, kinds: frozenset[int]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._reader = FrameReader(kinds)
        self._writer = Writer(sock.fileno())
        self.descriptors: deque[int] = deque()
        self.closed = False
        # Called when some of what was queued has been written.
        self.drained: Callable[[], None] | None = None

    @property
    def queued(self) -> int:
        """Bytes that are not written yet."""
        return self._writer.queued

    def send(self, data: bytes | memoryview) -> None:
        """Queue a frame."""
        if not self.closed:
            self._writer.send(data)

    def send_now(self, header: bytes, data: memoryview) -> None:
        """Write a frame whose body is only lent; what does not go at once is copied."""
        if not self.closed:
            with contextlib.suppress(OSError):  # who is gone is noticed by reading
                self._writer.send_now(header, data)

    def send_with(self, data: bytes, descriptors: list[int]) -> None:
        """Send a frame together with descriptors, at once; they are closed here.

        Raises:
            OSError: If the other end is gone, or has left thousands of these unread.
        """
        try:
            self._writer.flush()
            if self._writer.queued:
                raise BlockingIOError("the other end does not read")
            system.send_with_descriptors(self.sock, data, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def flush(self) -> bool:
        """Write what goes; return whether all is written. Nothing more goes to who is gone."""
        try:
            return self.closed or self._writer.flush()
        except OSError:  # who is gone is noticed by reading
            return True

    def receive(self, size: int = READ) -> list[Frame | Fragment] | None:
        """Return what has arrived, or ``None`` at the end of the stream.

        Fragments are valid until any channel is read again.

        Raises:
            RemoteProtocolError: If it is no frame: what runs in a worker can write into any
                of its descriptors.
        """
        try:
            count = self.sock.recv_into(_view, min(size, READ))
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._reader.feed(_view[:count]) if count else None

    def receive_descriptors(self) -> list[Frame | Fragment] | None:
        """As `receive`, for a channel on which descriptors come along (`descriptors`)."""
        try:
            data, descriptors = system.receive_with_descriptors(self.sock, READ)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.descriptors.extend(descriptors)
        return self._reader.feed(data) if data else None

    def close(self) -> None:
        """Close the socket."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                self.sock.close()
            while self.descriptors:
                os.close(self.descriptors.popleft())
