"""A node inside this process, for tests: two ends joined in memory.

What is written at one end arrives at the other in a later turn of the loop, in pieces
of a size that a test may choose, and as slowly as it likes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import NodeError
from ..resources import Resources
from .base import Receiver

# Bytes that may wait for the other end before the writer is told to pause.
WRITE_LIMIT = 1 << 18


class MemoryConnection:
    """One end of a pair; see `base.Connection`. What the other end writes goes to `receiver`."""

    def __init__(self, name: str, chunk: int | None) -> None:
        self.receiver: Receiver
        self.other: MemoryConnection
        self._name = name
        self._chunk = chunk
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()  # written here, not yet read there
        self._size = 0
        self._paused = False
        self._held = False  # the other end does not read
        self._scheduled = False
        self._finishing = False  # lost when all that waits has been read
        self._lost = False
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "open"
        return f"<MemoryConnection {self._name}, {self._size} bytes waiting, {state}>"

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Queue these bytes for the other end."""
        if self._lost or self._finishing:
            return
        for part in parts:
            if len(part):
                self._waiting.append(bytes(part))
                self._size += len(part)
        if self._size > WRITE_LIMIT and not self._paused:
            self._paused = True
            self.receiver.pause_writing()
        self._schedule()

    def write_stderr(self, data: bytes) -> None:
        """Print to the other end's standard error, as an agent may."""
        if not self._lost:
            self._loop.call_soon(self.other._take_stderr, data)

    def close(self) -> None:
        """End in good order: the other end reads what waits, and then that it is over."""
        self._finishing = True
        self._schedule()

    def abort(self) -> None:
        """End at once, for both; what waits is dropped."""
        self._waiting.clear()
        for end in (self, self.other):
            self._loop.call_soon(end._lose, None)

    def fail(self, exc: Exception) -> None:
        """End at once; the other end is told ``exc``, as when a network fails."""
        self._waiting.clear()
        self._loop.call_soon(self.other._lose, exc)
        self._loop.call_soon(self._lose, None)

    def hold(self) -> None:
        """Stop reading what the other end writes, until `release`."""
        self.other._held = True

    def release(self) -> None:
        """Read again."""
        self.other._held = False
        self.other._schedule()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await self._closed.wait()

    def _schedule(self) -> None:
        if not self._scheduled and not self._held:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Hand one piece to the other end."""
        self._scheduled = False
        if self._lost or self._held:
            return
        if self._waiting:
            data = self._waiting.popleft()
            if self._chunk is not None and len(data) > self._chunk:
                self._waiting.appendleft(data[self._chunk :])
                data = data[: self._chunk]
            self._size -= len(data)
            try:
                self.other.receiver.data_received(memoryview(data))
            except Exception as exc:
                self.other._lose(exc)
                self._lose(None)
                return
        if self._paused and self._size <= WRITE_LIMIT // 4:
            self._paused = False
            self.receiver.resume_writing()
        if self._waiting:
            self._schedule()
        elif self._finishing:
            self._lose(None)
            self.other._lose(None)

    def _take_stderr(self, data: bytes) -> None:
        if not self._lost:
            self.receiver.stderr_received(data)

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._waiting.clear()
            self._size = 0
            try:
                self.receiver.connection_lost(exc)
            finally:
                self._closed.set()


@dataclass(frozen=True)
class MemoryNode:
    """A node whose agent is an object in this process.

    Args:
        serve: Is called for each connection, with the agent's end of it, and returns what
            shall receive there what the farm writes. It may raise `NodeError`.
        chunk: The most bytes that arrive at once; ``None``: as they were written.
        name: What the farm calls it.
        stated: The capacity stated for it.
        scratch: As for other nodes.
        in_place: As for other nodes.
    """

    serve: Callable[[MemoryConnection], Receiver]
    chunk: int | None = field(default=None, kw_only=True)
    name: str = field(default="memory", kw_only=True)
    stated: Resources = field(default=Resources(), kw_only=True)
    scratch: str = field(default="", kw_only=True)
    in_place: bool = field(default=True, kw_only=True)

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> MemoryConnection:
        """Join both ends and send ``first``; the agent needs no bootstrap."""
        if program is not None:
            raise NodeError("a node in memory runs no program", node=self.name)
        ours = MemoryConnection(self.name, self.chunk)
        theirs = MemoryConnection(f"{self.name}'s agent", self.chunk)
        ours.other, theirs.other = theirs, ours
        ours.receiver = receiver
        theirs.receiver = self.serve(theirs)
        ours.write(first)
        return ours
