"""A receiver that keeps what it is told, and lets a test wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 30.0  # s; far more than anything here takes, on a machine that is busy


class Recorder:
    """Keeps everything that a connection says, and checks the order in which it may."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.stderr = b""
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self._changed = asyncio.Event()

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        self._note("data")
        self.data += data

    def stderr_received(self, data: bytes) -> None:
        self._note("stderr")
        self.stderr += data

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost")
        self.lost.append(exc)

    def _note(self, call: str) -> None:
        assert not self.lost, f"{call} after the connection was lost"
        if call != "data" or self.calls[-1:] != ["data"]:
            self.calls.append(call)
        self._changed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on this recorder holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_received(self, count: int) -> bytes:
        """Return what has arrived when it is this much."""
        await self.wait_until(lambda: len(self.data) >= count or bool(self.lost))
        assert len(self.data) >= count, f"lost after {len(self.data)} bytes: {self.lost}"
        return bytes(self.data)

    async def wait_lost(self) -> Exception | None:
        """Return why the connection was lost, when it is."""
        await self.wait_until(lambda: bool(self.lost))
        return self.lost[0]


async def wait_exists(path: object) -> None:
    """Return when there is a file at this path."""
    import os

    async with asyncio.timeout(PATIENCE):
        while not os.path.exists(str(path)):
            await asyncio.sleep(0.005)
