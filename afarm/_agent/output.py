"""What calls print: read from their pipes, bounded, passed on in pieces."""

from __future__ import annotations

import os
from collections.abc import Callable

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

Emit = Callable[[int, int, bytes], None]  # stream, bytes dropped before, bytes


class Pipes:
    """The pipes that descriptors 1 and 2 of one worker write into; the reading ends.

    Args:
        emit: Called with what is to be passed on.
    """

    def __init__(self, readers: tuple[int, int], emit: Emit) -> None:
        self.readers = readers
        self._emit = emit
        self._pending: list[tuple[int, bytearray]] = []
        self._tail = bytearray()
        self._passed = 0
        self._dropped = 0
        for reader in readers:
            os.set_blocking(reader, False)

    @property
    def waiting(self) -> bool:
        """Whether something was read that is not passed on yet."""
        return bool(self._pending) or self._dropped > 0

    def read(self) -> bool:
        """Take what lies in the pipes, at most some of it; return whether there may be more."""
        more = False
        for stream, reader in enumerate(self.readers, 1):
            try:
                data = os.read(reader, _READ)
            except BlockingIOError:
                continue
            if data:
                more |= len(data) == _READ
                self._take(stream, data)
        return more

    def read_all(self, most: int = 16 << 20) -> None:
        """Take everything that lies in the pipes now, at most ``most`` bytes."""
        while most > 0 and self.read():
            most -= _READ

    def _take(self, stream: int, data: bytes) -> None:
        self._tail += data[-TAIL:]
        if len(self._tail) > 2 * TAIL:
            del self._tail[:-TAIL]
        room = max(0, LIVE - self._passed)
        kept = data[:room]
        self._passed += len(kept)
        self._dropped += len(data) - len(kept)
        if not kept:
            return
        if not self._pending or self._pending[-1][0] != stream:
            self._pending.append((stream, bytearray()))
        self._pending[-1][1].extend(kept)

    def flush(self, *, last: bool = False) -> None:
        """Pass on what waits; what was dropped is told with the ``last`` piece of a call."""
        pending, self._pending = self._pending, []
        for stream, data in pending:
            for at in range(0, len(data), _PIECE):
                self._emit(stream, 0, bytes(data[at : at + _PIECE]))
        if last and self._dropped:
            self._emit(1, self._dropped, b"")
            self._dropped = 0

    def finish(self) -> bytes:
        """End the present call's output: pass on the rest, return its end, begin anew."""
        self.flush(last=True)
        tail = bytes(self._tail[-TAIL:])
        self._tail.clear()
        self._passed = 0
        return tail

    def close(self) -> None:
        """Close the reading ends."""
        for reader in self.readers:
            os.close(reader)
