"""`Executor`: a farm for synchronous code and for every library that takes an executor."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import concurrent.futures.thread
import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .errors import SerializationError
from .farm import Farm
from .invocation import Invocation
from .payload import dump_arguments
from .payload.arguments import Arguments
from .resources import Usage
from .transport.hosts import NodeSpec

T = TypeVar("T")

_living: weakref.WeakSet[Executor] = weakref.WeakSet()


def _shut_down_all() -> None:
    for executor in list(_living):
        executor.shutdown()


# As `concurrent.futures.thread` does, and after it, so as to be called before: a farm needs
# threads, which are not to be had any more when what `atexit` knows is called.
getattr(threading, "_register_atexit", atexit.register)(_shut_down_all)


class CallFuture(concurrent.futures.Future[T]):
    """A future whose `cancel` also ends a call that runs, and that knows what the call used."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._invocation: Invocation[T] | None = None

    def cancel(self) -> bool:
        """Cancel the call, whether it runs or not; its process tree is ended."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        self._loop.call_soon_threadsafe(self._cancel_invocation)
        return True

    def running(self) -> bool:
        """Return whether a node runs it now."""
        invocation = self._invocation
        return invocation is not None and not self.done() and invocation.state == "running"

    @property
    def usage(self) -> Usage | None:
        """What the last attempt of the call used; ``None`` before one has ended."""
        return None if self._invocation is None else self._invocation.usage

    def _cancel_invocation(self) -> None:
        if self._invocation is not None:
            self._invocation.cancel()

    def _follow(self, invocation: Invocation[T]) -> None:
        self._invocation = invocation
        invocation.add_done_callback(self._take)

    def _take(self, invocation: asyncio.Future[T]) -> None:
        if invocation.cancelled():
            self.cancel()
            return
        error = invocation.exception()
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(invocation.result())
        except concurrent.futures.InvalidStateError:
            if not self.cancelled():  # cancelled while the result was under way
                raise


class Executor(concurrent.futures.Executor):
    """A `concurrent.futures.Executor` that runs on a farm.

    The farm lives on an event loop in a thread of its own. Use it as a context manager, or
    call `shutdown`; at the end of the program it waits for its calls, as the standard
    library's do. Unlike there, cancelling a future also ends a call that runs.

    Args:
        nodes: As for `Farm`.
        farm_arguments: As for `Farm`.

    Raises:
        NoNodesError: If no node could be opened.
    """

    def __init__(
        self, nodes: NodeSpec | Iterable[NodeSpec] | None = None, **farm_arguments: Any
    ) -> None:
        self._farm = Farm(nodes, **farm_arguments)
        self._lock = threading.Lock()
        self._shut = False
        self._futures: set[CallFuture[Any]] = set()
        self._opened: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self._cancel = False
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._thread = threading.Thread(target=self._run, name="afarm-executor", daemon=True)
        self._thread.start()
        try:
            self._loop = self._opened.result()
        except BaseException:  # no node; or a Ctrl-C, which the other thread does not see
            self._shut = True
            self._give_up_opening()
            self._thread.join()
            raise
        _living.add(self)

    def __repr__(self) -> str:
        return f"<Executor on {self._farm!r}>"

    def _give_up_opening(self) -> None:
        if self._opening is not None:
            loop, task = self._opening
            with contextlib.suppress(RuntimeError):  # it has ended by itself, and its loop too
                loop.call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            if not self._opened.done():
                self._opened.set_exception(exc)
            elif not self._shut:
                raise

    async def _serve(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._opening = asyncio.get_running_loop(), task
        await self._farm.open()
        self._closing = asyncio.Event()
        self._opened.set_result(asyncio.get_running_loop())
        await self._closing.wait()
        await self._farm.close(cancel=self._cancel)

    @property
    def slots(self) -> int:
        """How many calls of one core the nodes that are up can hold."""
        return self._farm._slots()

    # What Dask asks an executor for, to know how much to hand over at once.
    _max_workers = slots

    def options(self, **settings: Any) -> ExecutorView:
        """Return a view of this executor with these settings for its calls: `Farm.options`.

        Raises:
            ValueError, TypeError: If a setting makes no sense; says which.
        """
        return ExecutorView(self, self._farm.options(**settings))

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Call a function on the farm; return a future of its result.

        Raises:
            RuntimeError: If the executor was shut down.
        """
        return self._submit_to(self._farm, fn, args, kwargs)

    def _submit_to(
        self, farm: Farm, fn: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> concurrent.futures.Future[T]:
        future: CallFuture[T] = CallFuture(self._loop)
        try:
            # Here and not on the farm's loop: the caller may change them afterwards.
            arguments = dump_arguments(args, kwargs)
            features = farm._submission.features(fn, args, kwargs)
        except SerializationError as exc:
            future.set_exception(exc)
            return future
        with self._lock:
            if self._shut:
                raise RuntimeError("this executor was shut down: make a new one")
            self._futures.add(future)
            self._loop.call_soon_threadsafe(
                _submit, farm, future, fn, arguments, features
            )  # fmt: skip
        future.add_done_callback(self._futures.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the executor: no more calls are taken.

        Args:
            wait: Return when everything is over; else at once, while it ends by itself.
            cancel_futures: Cancel what is not over.
        """
        with self._lock:
            first, self._shut = not self._shut, True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if first:
            self._cancel = cancel_futures
            self._loop.call_soon_threadsafe(self._closing.set)
            _living.discard(self)
        if wait:
            self._thread.join()


class ExecutorView(concurrent.futures.Executor):
    """An executor with settings of its own; ends with the one it is a view of.

    Args:
        executor: Which runs its calls.
        farm: The view of its farm.
    """

    def __init__(self, executor: Executor, farm: Farm) -> None:
        self._executor = executor
        self._farm = farm

    def __repr__(self) -> str:
        return f"<view of {self._executor!r}>"

    @property
    def slots(self) -> int:
        """How many calls of one core the nodes that are up can hold."""
        return self._executor.slots

    _max_workers = slots

    def options(self, **settings: Any) -> ExecutorView:
        """Return a view of this view; see `Executor.options`."""
        return ExecutorView(self._executor, self._farm.options(**settings))

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Call a function on the farm; return a future of its result.

        Raises:
            RuntimeError: If the executor was shut down.
        """
        return self._executor._submit_to(self._farm, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the executor is shut down by whoever made it."""


def _submit(
    farm: Farm,
    future: CallFuture[Any],
    fn: Callable[..., Any],
    arguments: Arguments,
    features: Mapping[str, float] | None,
) -> None:
    """Make a call; on the farm's loop."""
    if future.cancelled():
        return
    try:
        _, invocation = farm._submission.call(fn, (), {}, arguments=arguments, features=features)
    except Exception as exc:
        future.set_exception(exc)
    else:
        future._follow(invocation)
