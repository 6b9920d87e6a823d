"""What the user holds: an `Invocation` for each call, a `Ref` for each object put."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from ._agent import references
from ._wire.payloads import Buffer, join
from .call import IN_THREAD, Attempt, Call, Unopened
from .errors import SerializationError
from .payload import Arguments, Packed, Passed, load
from .payload.arguments import dump
from .payload.needs import Need
from .resources import Usage

if TYPE_CHECKING:
    from .scheduler import Scheduler

T = TypeVar("T")

log = logging.getLogger("afarm")


class Invocation(asyncio.Future[T], Passed):
    """One call of a function on the farm: an `asyncio.Future` of its result.

    Cancelling it, or the task that awaits it, ends its process tree on the node. Given as
    an argument to another call it stands for its result.
    """

    __slots__ = ("_call", "_opened", "_scheduler")

    def __init__(self, call: Call, scheduler: Scheduler) -> None:
        super().__init__(loop=scheduler.loop)
        self._call = call
        self._scheduler = scheduler
        call.future = self

    @property
    def category(self) -> str:
        """The category whose invocations it is sized with."""
        return self._call.category

    @property
    def state(self) -> str:
        """``"waiting"``, ``"staging"``, ``"running"`` or ``"done"``."""
        return "done" if self.done() else self._call.state

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Each try: node, allocation, usage, outcome."""
        return tuple(Attempt(*row) for row in self._call.attempts)

    @property
    def usage(self) -> Usage | None:
        """What the last attempt used, or uses so far."""
        return self._call.usage

    @property
    def output(self) -> str:
        """What the function printed: standard output and standard error, as they came."""
        return str(self._call.output) if self._call.output is not None else ""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it; its process tree on the node is ended, and only then its room is free."""
        if not super().cancel(msg):
            return False
        self._scheduler.cancel(self._call)
        return True

    def result(self) -> T:
        """Return the result, or raise what the function raised."""
        value: Any = super().result()
        return cast("T", value.open(self)) if type(value) is Unopened else value

    def exception(self) -> BaseException | None:
        """Return what the function raised, or ``None``."""
        error = super().exception()
        if error is not None:
            return error
        value: Any = super().result()
        if type(value) is Unopened:
            try:
                value.open(self)
            except SerializationError as exc:
                return exc
        return None

    def __await__(self) -> Generator[Any, None, T]:
        value: Any = yield from super().__await__()
        if type(value) is not Unopened:
            return cast("T", value)
        if value.size > IN_THREAD:
            return cast("T", (yield from asyncio.to_thread(value.open, self).__await__()))
        return cast("T", value.open(self))

    __iter__ = __await__

    def __del__(self) -> None:
        # The loop's handler would print a traceback for each failure that nobody looked at;
        # the farm tells of all of them in one line when it closes.
        if getattr(self, "_log_traceback", False):
            self._log_traceback = False
            self._scheduler.unseen.append(self._call.category)

    def __repr__(self) -> str:
        return f"<Invocation {self._call.id} of {self._call.category}, {self.state}>"

    # --- as an argument

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} stands for its result only among the arguments of a call")

    def _pass(self, arguments: Arguments) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self._scheduler.loop is not asyncio.get_running_loop():
            raise ValueError(f"{self!r} belongs to another event loop")
        number = arguments.add_invocation(self)
        if not self.done() and self._call.takers is None:
            self._call.takers = []  # from now on its result is wanted as bytes
        return references.dependency, (number,)

    async def _packed(self) -> Packed:
        """Return the result as bytes, without unpickling it here."""
        if not self.done():
            taker: asyncio.Future[Packed] = self._scheduler.loop.create_future()
            takers = self._call.takers
            assert takers is not None  # set when this became an argument
            takers.append(taker)
            return await taker
        value: Any = super().result()
        if type(value) is Unopened:
            return Packed.of_parts(value.parts)
        return await asyncio.to_thread(dump, value)


class Ref(Passed, Generic[T]):
    """An object that nodes are sent once; stands for it in the arguments of calls."""

    __slots__ = ("__weakref__", "blob", "owner", "packed")

    def __init__(self, blob: int, packed: Arguments, owner: Scheduler) -> None:
        self.blob = blob
        self.packed = packed
        self.owner = owner

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} stands for its object only among the arguments of a call")

    def __repr__(self) -> str:
        return f"<Ref {self.blob}, {self.packed.size} bytes>"

    def _pass(self, arguments: Arguments) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        arguments.add_ref(self)
        return references.ref, (self.blob,)

    def _needs(self) -> frozenset[Need]:
        return self.packed.needs

    def _known_size(self) -> int:
        return self.packed.size

    def pieces(self) -> Sequence[Buffer]:
        """Return what is sent: the pickle and its buffers, as one blob that describes itself."""
        return join(self.packed.parts())

    def _load(self) -> T:
        return cast("T", load(self.packed.parts()))
