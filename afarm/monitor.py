"""The function monitor alone: one call in this machine's own process, measured and limited.

    result, usage = await afarm.monitor.run(fn, *args, limits=afarm.Resources(memory=2 << 30))
    result, usage = afarm.monitor.run_sync(fn, *args)

    @afarm.monitored(memory="2 GiB", wall_time=60)
    def fn(...): ...

Of use without a farm and without SSH, inside Dask, Parsl, Ray, joblib, Jupyter or a plain
script. The host process is never forked, since it may have threads: the call runs in a fresh
process below a small helper, which is kept for the next one and ends with its host. It is the
agent of a local node, so that there is one monitor and not two; that is why this module stands
above the farm's layers, though it needs no more than one node of them.

Where there are no nodes (macOS, BSD) psutil looks at the calls instead: less exactly, see
`afarm.polling` and what `Usage` says of each figure.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from ._monitor.kernel import why_no_node
from .payload.importing import importable
from .resources import RESOURCE_NAMES, Resources, Usage, parse_bytes

if TYPE_CHECKING:
    from .executor import CallFuture, Executor
    from .polling import PolledFuture

P = ParamSpec("P")
T = TypeVar("T")

# What the helper takes at once is the host's to decide, who asks for it: nothing waits there.
_PLENTY = 1 << 60
_MOST_CORES = 1_000_000


class _Helper:
    """The helper of this process: an executor of one local node, made at its first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self._owner = 0  # the process that made it: after a fork the child makes its own

    def executor(self) -> Executor:
        """Return the executor."""
        # Imported at the first call: most programs that name this module have a farm already,
        # and those that only decorate a function need none of it yet.
        from .executor import Executor
        from .transport.local import LocalNode

        with self._lock:
            if self._executor is None or self._owner != os.getpid():
                node = LocalNode(
                    cores=_MOST_CORES, memory=_PLENTY, disk=_PLENTY, name=f"monitor {os.getpid()}"
                )
                self._executor = Executor(
                    [node], sizing="unmanaged", isolation="fork", retries=0, progress=False
                )
                self._owner = os.getpid()
            return self._executor

    def after_fork(self) -> None:
        """Forget, in a child, what only its parent has."""
        self._lock = threading.Lock()
        self._executor = None


_helper = _Helper()
os.register_at_fork(after_in_child=_helper.after_fork)


def _polls() -> bool:
    """Return whether calls are to be polled here: no agent runs on this platform."""
    return bool(why_no_node(sys.platform))


def _begin(
    fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], limits: Resources | None
) -> CallFuture[T] | PolledFuture[T]:
    if not callable(fn):
        raise TypeError(f"a function is needed, not {fn!r}")
    stated = {name: getattr(limits, name) for name in RESOURCE_NAMES} if limits else {}
    # The numerical libraries of the call may start as many threads.
    stated["cores"] = stated.get("cores") or os.cpu_count() or 1
    if _polls():
        from .polling import begin

        return begin(fn, args, kwargs, stated)
    view = _helper.executor().options(**stated)
    return cast("CallFuture[T]", view.submit(fn, *args, **kwargs))


async def run(
    fn: Callable[..., T], /, *args: Any, limits: Resources | None = None, **kwargs: Any
) -> tuple[T, Usage]:
    """Call a function in a process of its own; return its result and what it used.

    Cancelling this wait ends the call with its whole process tree. Coroutine functions run
    with `asyncio.run` there.

    Args:
        fn: What to call.
        args: Its arguments; pickled.
        limits: What it may use at most, its whole process tree together.
        kwargs: Its keyword arguments.

    Raises:
        ResourceExhausted: It went over a limit: which, by how much, and the end of its output.
        InvocationTimeout: Its wall time ran out.
        InvocationCrashed: Its process died.
        SerializationError: Something cannot be pickled.
        Exception: What the function itself raised, with the remote traceback.
    """
    future = _begin(fn, args, kwargs, limits)
    result = await asyncio.wrap_future(future)
    return result, _measured(future)


def run_sync(
    fn: Callable[..., T], /, *args: Any, limits: Resources | None = None, **kwargs: Any
) -> tuple[T, Usage]:
    """Call a function in a process of its own and wait for it; see `run`."""
    future = _begin(fn, args, kwargs, limits)
    try:
        result = future.result()
    except BaseException:
        # A Ctrl-C is for the one who waits: the call ends with it.
        future.cancel()
        raise
    return result, _measured(future)


def _measured(future: CallFuture[Any] | PolledFuture[Any]) -> Usage:
    usage = future.usage
    assert usage is not None  # it has returned
    return usage


class Monitored(Generic[P, T]):
    """A function whose calls are measured and limited; made by `monitored`.

    Attributes:
        limits: What each call may use.
        last_usage: What the last call that ended used, also if it failed; ``None`` before the
            first.
    """

    def __init__(self, fn: Callable[P, T], limits: Resources) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self.limits = limits
        self.last_usage: Usage | None = None
        # So that frameworks see what it is; before Python 3.12 there is no way to say so.
        mark = getattr(inspect, "markcoroutinefunction", None)
        if mark is not None and inspect.iscoroutinefunction(fn):
            mark(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function; return its result alone. Of a coroutine function, a coroutine."""
        if inspect.iscoroutinefunction(self._fn):
            return cast("T", self._wait(args, kwargs))
        future = _begin(self._fn, args, kwargs, self.limits)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            self.last_usage = future.usage

    async def _wait(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        future = _begin(self._fn, args, kwargs, self.limits)
        try:
            return await asyncio.wrap_future(future)
        finally:
            self.last_usage = future.usage

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind it, as a function in a class is bound."""
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        # By its name, as a function is, where it can be imported; else with what it is made of.
        if importable(self):
            return self.__qualname__  # type: ignore[attr-defined]
        return _remade, (self._fn, self.limits)

    def __repr__(self) -> str:
        return f"<monitored {self._fn!r}>"


def _remade(fn: Callable[..., Any], limits: Resources) -> Monitored[Any, Any]:
    return Monitored(fn, limits)


def monitored(
    *,
    cores: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    wall_time: float | None = None,
    cpu_time: float | None = None,
    processes: int | None = None,
) -> Callable[[Callable[P, T]], Monitored[P, T]]:
    """Let each call of a function run measured and limited, in a process of its own.

    The function returns its result alone and keeps ``last_usage``.

    Args:
        cores: How many threads its numerical libraries start.
        memory: Bytes, or ``"2 GiB"``, of its whole process tree.
        disk: Bytes in its scratch directory.
        wall_time: Seconds.
        cpu_time: Seconds of CPU.
        processes: Processes alive at once.

    Raises:
        ValueError, TypeError: If a limit makes no sense; at the first call for all but sizes.
    """
    limits = Resources(
        cores=cores,
        memory=None if memory is None else parse_bytes(memory),
        disk=None if disk is None else parse_bytes(disk),
        wall_time=wall_time,
        cpu_time=cpu_time,
        processes=processes,
    )
    return lambda fn: Monitored(fn, limits)


__all__ = ["Monitored", "monitored", "run", "run_sync"]
