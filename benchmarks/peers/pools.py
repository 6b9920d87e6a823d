"""Pools of processes on one machine: the standard library's, pebble and loky."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.pool import Pool
from typing import Any

from .base import WORKERS, Peer, Wait


class PoolPeer(Peer):
    """``multiprocessing.Pool``, of its own choice with as many calls per child as one likes."""

    def __init__(self, calls_per_child: str = "") -> None:
        self._calls_per_child = int(calls_per_child) if calls_per_child else None
        self._pool: Pool | None = None

    def open(self) -> None:
        self._pool = multiprocessing.Pool(WORKERS, maxtasksperchild=self._calls_per_child)
        self.call(len, "")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        assert self._pool is not None
        return self._pool.apply_async(fn, args).get

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        assert self._pool is not None
        # One call at a time, as everyone else here: its own choice of chunks would send
        # a sixteenth of all calls in one message and answer them in one.
        return list(self._pool.imap_unordered(fn, arguments, chunksize=1))


class ExecutorPeer(Peer):
    """``concurrent.futures.ProcessPoolExecutor``; one call per child only with spawned ones."""

    def __init__(self, calls_per_child: str = "") -> None:
        self._calls_per_child = int(calls_per_child) if calls_per_child else None
        self._pool: Executor | None = None

    def open(self) -> None:
        self._pool = self._make()
        self.call(len, "")

    def _make(self) -> Executor:
        if self._calls_per_child is None:
            return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork"))
        return ProcessPoolExecutor(
            WORKERS,
            mp_context=multiprocessing.get_context("forkserver"),
            max_tasks_per_child=self._calls_per_child,
        )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        assert self._pool is not None
        return self._pool.submit(fn, *args).result


class LokyPeer(ExecutorPeer):
    """loky's reusable executor, which joblib uses."""

    def _make(self) -> Executor:
        import loky

        executor: Executor = loky.get_reusable_executor(max_workers=WORKERS)
        return executor

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class PebblePeer(Peer):
    """pebble's pool, which can kill a call."""

    def __init__(self) -> None:
        self._pool: Any = None

    def open(self) -> None:
        import pebble

        context = multiprocessing.get_context("fork")
        self._pool = pebble.ProcessPool(max_workers=WORKERS, context=context)
        self.call(len, "")

    def close(self) -> None:
        self._pool.stop()
        self._pool.join(timeout=5)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        wait: Wait = self._pool.schedule(fn, args=args).result
        return wait
