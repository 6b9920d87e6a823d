"""A worker's end of the socket to the agent: messages one by one, payloads without copies.

Blocking, unlike the agent's end: a worker has nothing else to do.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence

from .._wire.frames import BULK, BULK_LIMIT, CONTROL_LIMIT, HEADER, Frame, pack_header
from .._wire.payloads import Buffer, Gather

# Most messages are far shorter; several of them are read at once.
_READ = 1 << 16

# What one call of sendmsg takes; also the size of the bulk frames sent.
_SEND = BULK_LIMIT


class Inbox:
    """Reads and writes frames on a blocking socket.

    Attributes:
        busy: Whether some thread has its `turn`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._at = 0
        self._aside: deque[Frame] = deque()  # received while something else was waited for
        self._turn = _thread.RLock()
        self.busy = False

    @property
    def waiting(self) -> bool:
        """Whether something was read that nobody has asked for yet."""
        return self._at < len(self._buffer)

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Keep other threads from the socket, while a call runs that may have started some.

        Yields:
            Whether it is free; not if this very thread was about to use it, and is now in a
            signal handler or a finalizer.
        """
        with self._turn:
            if self.busy:
                yield False
                return
            self.busy = True
            try:
                yield True
            finally:
                self.busy = False

    def _fill(self, wanted: int, most: int = _READ) -> bool:
        """Read until so many bytes are buffered; return whether the stream has them."""
        while (missing := wanted - (len(self._buffer) - self._at)) > 0:
            data = self._sock.recv(max(most, missing))
            if not data:
                return False
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
        return True

    def receive(self) -> Frame | None:
        """Return the next control frame, or ``None`` at the end of the stream.

        Raises:
            ValueError: If a frame is of a size that the agent does not send.
        """
        return self._aside.popleft() if self._aside else self._next()

    def receive_kind(self, kind: int) -> Frame | None:
        """Return the next frame of a kind; what comes before it is kept for `receive`.

        A call that waits for its caller has others behind it, sent ahead.
        """
        for frame in self._aside:
            if frame.kind == kind:
                self._aside.remove(frame)
                return frame
        while (new := self._next()) is not None:
            if new.kind == kind:
                return new
            self._aside.append(new)
        return None

    def _next(self) -> Frame | None:
        if not self._fill(HEADER.size):
            return None
        length, kind, _, subject = HEADER.unpack_from(self._buffer, self._at)
        if kind == BULK or length > CONTROL_LIMIT:
            raise ValueError(f"a frame of kind {kind} and {length} bytes out of its place")
        if not self._fill(HEADER.size + length):
            return None
        start = self._at + HEADER.size
        self._at = start + length
        return Frame(kind, subject, self._buffer[start : self._at])

    def gather(self, into: Gather) -> bool:
        """Read the bulk frames of one payload; return whether the stream has them.

        The bytes go from the socket to where they are wanted; only what was read along
        with earlier messages is copied.
        """
        while not into.complete:
            if not self._fill(HEADER.size, most=0):
                return False
            length, kind, _, _ = HEADER.unpack_from(self._buffer, self._at)
            if kind != BULK or length > into.left:
                raise ValueError("something else where bulk was to come")
            self._at += HEADER.size
            ready = self._buffer[self._at : self._at + length]
            into.feed(ready)
            self._at += len(ready)
            length -= len(ready)
            if not self._receive_into(into, length):
                return False
        return True

    def _receive_into(self, into: Gather, length: int) -> bool:
        """Read the rest of a bulk frame; along with its end, the header of the next one."""
        header = bytearray(HEADER.size)
        while length:
            room = into.target()[:length]
            if len(room) < length or length == into.left:
                count = self._sock.recv_into(room)
            else:
                count = self._sock.recvmsg_into((room, header))[0]
                if count > length:
                    self._buffer = bytes(header[: count - length])
                    self._at = 0
                    count = length
            if not count:
                return False
            into.advance(count)
            length -= count
        return True

    def send(self, frame: bytes) -> None:
        """Send one message."""
        self._sock.sendall(frame)

    def send_bulk(self, subject: int, parts: Sequence[Buffer]) -> None:
        """Send a payload's bytes as bulk frames."""
        for part in parts:
            view = memoryview(part).cast("B")
            for at in range(0, len(view), _SEND):
                piece = view[at : at + _SEND]
                header = pack_header(BULK, subject, len(piece))
                sent = self._sock.sendmsg([header, piece])
                if sent < len(header):
                    self._sock.sendall(header[sent:])
                    sent = len(header)
                self._sock.sendall(piece[sent - len(header) :])

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()


def wait_drained(descriptor: int) -> None:
    """Wait until everything in a pipe has been read at its other end.

    Asked with FIONREAD, which a pipe answers at either end; the reader is the supervisor,
    which is awake within some 50 us.
    """
    import fcntl
    import struct
    import termios
    import time

    pause = 20e-6
    while True:
        try:
            answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
        except OSError:  # the user's code put something else there
            return
        if struct.unpack("i", answer)[0] == 0 or os.getppid() == 1:
            return
        time.sleep(pause)
        pause = min(2 * pause, 1e-3)
