"""What goes to the farm: control before bulk, and bulk no faster than it is taken."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from .._wire.flow import CREDIT, Pacer
from .._wire.frames import BULK, BULK_LIMIT, pack_header

# Buffers given to one writev; Linux takes 1024.
_VECTOR = 512


class Outbox:
    """Frames on their way to the farm.

    Args:
        descriptor: Where they are written; must not block.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._partial: memoryview | None = None  # the rest of a frame that is half written
        self._control: deque[bytes] = deque()
        # subject, frame, bytes of bulk in it
        self._bulk: deque[tuple[int, bytes, int]] = deque()
        self._bulk_queued = 0
        self._credits: dict[int, int] = {}
        self._behind: dict[int, int] = {}  # frames in `_bulk`, by subject
        self.pacer = Pacer()
        self.written = 0  # bytes, by `flush`

    def send(self, frame: bytes) -> None:
        """Queue a control frame."""
        self._control.append(frame)

    def send_in_order(self, subject: int, frame: bytes) -> None:
        """Queue a control frame, behind the bulk of its own subject if some is queued."""
        if subject in self._behind:
            self._append(subject, frame, 0)
        else:
            self._control.append(frame)

    def _append(self, subject: int, frame: bytes, size: int) -> None:
        self._behind[subject] = self._behind.get(subject, 0) + 1
        self._bulk.append((subject, frame, size))
        self._bulk_queued += size

    def open(self, subject: int) -> None:
        """A payload's bytes are to be sent: it starts with the credit every receiver gives."""
        self._credits[subject] = CREDIT

    def close(self, subject: int) -> None:
        """No more bytes of this payload come."""
        self._credits.pop(subject, None)

    def add_credit(self, subject: int, amount: int) -> None:
        """The farm has room for more bytes of a payload."""
        if subject in self._credits:
            self._credits[subject] += amount

    def room(self, subject: int) -> int:
        """Return how many bytes of a payload may be queued now, at most one frame's.

        None while bulk waits to be written: more would only be copied, to wait behind it.
        """
        if self._bulk_queued or self._partial:
            return 0
        allowed = self.pacer.allowance() - self._bulk_queued
        return max(0, min(self._credits.get(subject, 0), allowed, BULK_LIMIT))

    def send_bulk(self, subject: int, data: bytes | memoryview, now: float) -> None:
        """Send some bytes of a payload; they are copied only where they have to wait."""
        self._credits[subject] -= len(data)
        header = pack_header(BULK, subject, len(data))
        written = 0
        if not self.waiting:
            # That the connection is full, or gone, is told to `flush`.
            with contextlib.suppress(OSError):
                written = os.writev(self._descriptor, (header, data))
        if not written:
            self._append(subject, b"".join((header, data)), len(data))
            return
        self.pacer.on_sent(len(data), now)
        if written < len(header):
            self._partial = memoryview(b"".join((header[written:], data)))
        elif written < len(header) + len(data):
            self._partial = memoryview(bytes(data[written - len(header) :]))

    @property
    def waiting(self) -> bool:
        """Whether anything is not written yet."""
        return bool(self._partial or self._control or self._bulk)

    def flush(self, now: float) -> bool:
        """Write what the connection takes; return whether all is written.

        Raises:
            OSError: If the connection is gone.
        """
        while self.waiting:
            pieces: list[bytes | memoryview] = [self._partial] if self._partial else []
            control = min(len(self._control), _VECTOR)
            pieces += [self._control[n] for n in range(control)]
            # A bulk frame that was begun has to be ended before anything urgent goes.
            if self._bulk and control < _VECTOR:
                pieces.append(self._bulk[0][1])
            try:
                count = os.writev(self._descriptor, pieces)
            except BlockingIOError:
                return False
            self.written += count
            self._note_written(count, now)
        return True

    def _note_written(self, count: int, now: float) -> None:
        if self._partial is not None:
            if count < len(self._partial):
                self._partial = self._partial[count:]
                return
            count -= len(self._partial)
            self._partial = None
        while count and self._control:
            frame = self._control.popleft()
            if count < len(frame):
                self._partial = memoryview(frame)[count:]
                return
            count -= len(frame)
        if count and self._bulk:
            subject, frame, size = self._bulk.popleft()
            self._behind[subject] -= 1
            if not self._behind[subject]:
                del self._behind[subject]
            self._bulk_queued -= size
            if size:
                self.pacer.on_sent(size, now)
            if count < len(frame):
                self._partial = memoryview(frame)[count:]
