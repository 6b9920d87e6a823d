"""What calls print: read from their pipes, bounded, passed on in pieces."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# What is read from a pipe at once: all that it can hold.
_READ = 1 << 16

# So many bytes of one invocation's output are passed on while it runs; an endless
# print must not fill the connection.
LIVE = 256 << 10

# The end of the output that goes along with a failure.
TAIL = 16 << 10

# Output waits so long for more, to travel in one message.
COALESCE = 0.05

_PIECE = 32 << 10

# The number of the call, the stream, bytes that were dropped before, bytes.
Emit = Callable[[int, int, int, bytes], None]


@dataclass(slots=True)
class _Printed:
    """What one call has printed, as far as it is kept."""

    sequence: int
    pending: list[tuple[int, bytearray]] = field(default_factory=list)
    tail: bytearray = field(default_factory=bytearray)
    passed: int = 0
    dropped: int = 0

    def take(self, stream: int, data: bytes) -> None:
        self.tail += data[-TAIL:]
        if len(self.tail) > 2 * TAIL:
            del self.tail[:-TAIL]
        kept = data[: max(0, LIVE - self.passed)]
        self.passed += len(kept)
        self.dropped += len(data) - len(kept)
        if not kept:
            return
        if not self.pending or self.pending[-1][0] != stream:
            self.pending.append((stream, bytearray()))
        self.pending[-1][1].extend(kept)

    def flush(self, emit: Emit) -> None:
        pending, self.pending = self.pending, []
        for stream, data in pending:
            for at in range(0, len(data), _PIECE):
                emit(self.sequence, stream, 0, bytes(data[at : at + _PIECE]))


class Pipes:
    """The pipes that descriptors 1 and 2 of one worker write into; the reading ends.

    A worker that serves many calls begins the next one only when these pipes are empty,
    so that whatever is read belongs to the call that is the present one before the read.

    Args:
        readers: The descriptors.
        present: Returns the number of the present call.
        emit: Called with what is to be passed on.
    """

    def __init__(self, readers: tuple[int, int], present: Callable[[], int], emit: Emit) -> None:
        self.readers = readers
        self.ended: set[int] = set()  # readers that nobody writes to any more
        self._present = present
        self._emit = emit
        self._calls: deque[_Printed] = deque()  # that have printed and were not asked for
        for reader in readers:
            os.set_blocking(reader, False)

    @property
    def waiting(self) -> bool:
        """Whether something was read that is not passed on yet."""
        return any(call.pending for call in self._calls)

    def read(self) -> bool:
        """Take what lies in the pipes, at most some of it; return whether there may be more."""
        more = False
        for stream, reader in enumerate(self.readers, 1):
            sequence = self._present()
            try:
                data = os.read(reader, _READ)
            except BlockingIOError:
                continue
            if data:
                more |= len(data) == _READ
                self._call(sequence).take(stream, data)
            else:
                self.ended.add(reader)
        return more

    def _call(self, sequence: int) -> _Printed:
        if not self._calls or self._calls[-1].sequence != sequence:
            self._calls.append(_Printed(sequence))
        return self._calls[-1]

    def read_all(self, most: int = 16 << 20) -> None:
        """Take everything that lies in the pipes now, at most ``most`` bytes."""
        while most > 0 and self.read():
            most -= _READ

    def flush(self) -> None:
        """Pass on what waits."""
        for call in self._calls:
            call.flush(self._emit)

    def finish(self, sequence: int) -> bytes:
        """Pass on the rest of a call's output, and of all before it; return the end of it."""
        tail = b""
        while self._calls and self._calls[0].sequence <= sequence:
            call = self._calls.popleft()
            call.flush(self._emit)
            if call.dropped:
                self._emit(call.sequence, 1, call.dropped, b"")
            tail = bytes(call.tail[-TAIL:]) if call.sequence == sequence else b""
        return tail

    def close(self) -> None:
        """Close the reading ends."""
        for reader in self.readers:
            os.close(reader)
