"""afarm itself, through its public interface only; every call measured and limited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import afarm

from .base import WORKERS, Answer, Peer, Wait
from .server import Server

_T = TypeVar("_T")


class AfarmPeer(Peer):
    """A farm of one node with two cores: this machine, or one reached by SSH on loopback."""

    def __init__(
        self, isolation: str = "auto", transport: str = "local", *, record: Path | None = None
    ) -> None:
        self._isolation = isolation
        self._over_ssh = transport == "ssh"
        self._record = record
        self._server: Server | None = None
        self._runner = asyncio.Runner()
        self._whole: afarm.Farm | None = None
        self.farm: afarm.Farm

    def open(self) -> None:
        self._runner.run(self._open())

    async def _open(self) -> None:
        node: Any = afarm.LocalNode(cores=WORKERS)
        if self._over_ssh:
            self._server = Server()
            self._server.start()
            node = afarm.SSHNode(self._server.alias, config=str(self._server.config), cores=WORKERS)
        self._whole = afarm.Farm(
            [node], isolation=self._isolation, record=self._record, progress=False
        )
        await self._whole.open()
        self.farm = self._whole.options(cores=1, memory="256 MiB")
        await asyncio.gather(*(self.farm.submit(len, "") for _ in range(WORKERS)))

    def close(self) -> None:
        if self._whole is not None:
            self._runner.run(self._whole.close())
        self._runner.close()
        if self._server is not None:
            self._server.stop()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run something on the farm's loop."""
        return self._runner.run(coroutine)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        async def begin() -> asyncio.Future[Any]:
            return self.farm.submit(fn, *args)

        future = self._runner.run(begin())

        async def wait(seconds: float) -> Any:
            return await asyncio.wait_for(future, seconds)

        return lambda seconds: self._runner.run(wait(seconds))

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        async def one() -> Any:
            return await self.farm.submit(fn, *args)

        return self._runner.run(one())

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        async def everything() -> list[Any]:
            return await asyncio.gather(*[self.farm.submit(fn, one) for one in arguments])

        return self._runner.run(everything())

    def round_trips(self, fn: Callable[..., Any], number: int) -> list[float]:
        async def one_at_a_time() -> list[float]:
            clock = time.perf_counter
            took = []
            for _ in range(number):
                began = clock()
                await self.farm.submit(fn)
                took.append(clock() - began)
            return took

        return self._runner.run(one_at_a_time())

    def answers(
        self, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], patience: float
    ) -> list[Answer]:
        async def answer(future: asyncio.Future[Any], began: float) -> Answer:
            value, error = None, ""
            try:
                value = await asyncio.wait_for(future, patience)
            except TimeoutError:
                error = "no answer"
            except Exception as exc:
                error = type(exc).__name__
            return Answer(value, error, time.perf_counter() - began)

        async def everything() -> list[Answer]:
            began = time.perf_counter()
            futures = [self.farm.submit(fn, *arguments) for fn, arguments in calls]
            return await asyncio.gather(*(answer(future, began) for future in futures))

        return self._runner.run(everything())
