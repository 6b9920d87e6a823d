"""`Farm.map` and `Farm.stream`: many results, in order or as they come, never too many ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from .call import IN_THREAD, Call
from .invocation import Invocation
from .payload import load
from .scheduler import Scheduler

# Items that a stream's node may send before the caller has taken any.
STREAM_AHEAD = 16

# Where calls are over sooner than a node can be told of the next, so many of them
# are kept outstanding, in seconds of work at the rate that results arrive at.
_AHEAD = 0.1

# And never more than this, since each holds its arguments.
_LARGEST_WINDOW = 1024

# Arguments above this are not worth being ahead with: sending them takes the time.
_LIGHT = 64 << 10


class _End(Exception):
    """The inputs are used up."""


class _Inputs:
    """The argument tuples of a map, out of any mixture of iterables and async iterables."""

    def __init__(self, iterables: tuple[Any, ...]) -> None:
        self.waits = any(isinstance(each, AsyncIterable) for each in iterables)
        self._iterators: list[Any] = [
            aiter(each) if isinstance(each, AsyncIterable) else iter(each) for each in iterables
        ]

    def take(self) -> tuple[Any, ...]:
        """Return the next tuple, where no iterable is async."""
        taken = []
        for iterator in self._iterators:
            try:
                taken.append(next(iterator))
            except StopIteration:
                raise _End from None
        return tuple(taken)

    async def wait(self) -> tuple[Any, ...]:
        """Return the next tuple."""
        taken = []
        for iterator in self._iterators:
            try:
                if isinstance(iterator, AsyncIterator):
                    taken.append(await anext(iterator))
                else:
                    taken.append(next(iterator))
            except (StopIteration, StopAsyncIteration):
                raise _End from None
        return tuple(taken)


class _Window:
    """How many inputs may be pulled and not handed out."""

    def __init__(self, stated: int | None, slots: Callable[[], int]) -> None:
        self._stated = stated
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._handed_out = 0
        self._size = stated if stated is not None else 4 * slots()

    def note(self, invocation: Invocation[Any]) -> None:
        """Note that a result was handed out; every 64 of them the size is thought over."""
        self._handed_out += 1
        if self._stated is not None or self._handed_out % 64:
            return
        now = self._loop.time()
        rate = 64 / max(now - self._began, 1e-6)
        self._began = now
        usual = 4 * self._slots()
        self._size = min(max(usual, int(rate * _AHEAD)), max(usual, _LARGEST_WINDOW))

    @property
    def size(self) -> int:
        return self._size


class Mapping:
    """One `Farm.map` under way.

    Args:
        submit: Makes an invocation of a tuple of arguments.
        iterables: Where the arguments come from.
        window: See `Farm.map`; ``None`` for a few times the farm's slots.
        slots: Says how many slots the farm has.
    """

    def __init__(
        self,
        submit: Callable[..., Invocation[Any]],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        *,
        ordered: bool,
        window: int | None,
        return_exceptions: bool,
        slots: Callable[[], int],
    ) -> None:
        self._submit = submit
        self._inputs = _Inputs(iterables)
        self._ordered = ordered
        self._window = window
        self._return_exceptions = return_exceptions
        self._slots = slots
        self._outstanding: dict[Invocation[Any], None] = {}  # in the order of the inputs
        self._ready: deque[Invocation[Any]] = deque()  # done, where the order is free
        self._pulling: asyncio.Task[tuple[Any, ...]] | None = None
        self._over = False
        self._input_error: Exception | None = None
        self._wake: asyncio.Future[None] | None = None

    async def results(self) -> AsyncIterator[Any]:
        """Yield the results; leaving the iteration cancels what is outstanding."""
        window = _Window(self._window, self._slots)
        try:
            while True:
                self._fill(window.size)
                if not self._outstanding and not self._ready and self._over:
                    break
                invocation = await self._next()
                if invocation is None:
                    continue
                window.note(invocation)
                try:
                    value = await invocation
                except asyncio.CancelledError:
                    if self._return_exceptions and invocation.cancelled():
                        value = asyncio.CancelledError()
                    else:
                        raise
                except Exception as exc:
                    if not self._return_exceptions:
                        raise
                    value = exc
                yield value
            if self._input_error is not None:
                raise self._input_error
        finally:
            await self._leave()

    def _fill(self, size: int) -> None:
        """Pull and submit inputs while the window has room and none has to be waited for."""
        while not self._over and len(self._outstanding) + len(self._ready) < size:
            if self._inputs.waits:
                if self._pulling is None:
                    self._pulling = asyncio.ensure_future(self._inputs.wait())
                    self._pulling.add_done_callback(self._look_again)
                if not self._pulling.done():
                    return
                pulled, self._pulling = self._pulling, None
                take: Callable[[], tuple[Any, ...]] = pulled.result
            else:
                take = self._inputs.take
            try:
                arguments = take()
            except _End:
                self._over = True
                return
            except Exception as exc:  # the caller's iterable: raised at its place
                self._over = True
                self._input_error = exc
                return
            invocation = self._submit(*arguments)
            self._outstanding[invocation] = None
            if not self._ordered:
                invocation.add_done_callback(self._done)

    async def _next(self) -> Invocation[Any] | None:
        """Return the invocation to hand out next, or ``None`` if there is an input to take."""
        if self._ordered and self._outstanding:
            head = next(iter(self._outstanding))
            if self._pulling is not None and not head.done():
                await asyncio.wait((head, self._pulling), return_when=asyncio.FIRST_COMPLETED)
                if not head.done():
                    return None
            del self._outstanding[head]
            self._ready.append(head)  # while it is awaited it is still to be cancelled
            await asyncio.wait((head,)) if not head.done() else None
            return self._ready.popleft()
        if self._ready:
            return self._ready.popleft()
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake
        return None

    def _done(self, invocation: Any) -> None:
        if invocation in self._outstanding:
            del self._outstanding[invocation]
            self._ready.append(invocation)
        self._look_again(invocation)

    def _look_again(self, _: asyncio.Future[Any]) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _leave(self) -> None:
        for invocation in (*self._outstanding, *self._ready):
            invocation.cancel()
            if invocation.done() and not invocation.cancelled():
                invocation.exception()  # nobody will look at it, and that is as it should be
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.wait((self._pulling,))
            if not self._pulling.cancelled():
                self._pulling.exception()


class Stream(AsyncIterator[Any]):
    """The items of one `Farm.stream`, as they arrive.

    Closing it, or leaving it to be collected, ends the function, whether or not an item
    was taken: an async generator that was never started would let it run.
    """

    def __init__(self, scheduler: Scheduler, call: Call, invocation: Invocation[Any]) -> None:
        assert call.stream is not None
        self._loop = scheduler.loop
        self._state = call.stream
        self._state.consumer = asyncio.current_task()
        self._invocation = invocation
        self._items = _items(scheduler, call, invocation)

    async def __anext__(self) -> Any:
        self._state.consumer = asyncio.current_task()
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the function and the iteration."""
        await self._items.aclose()
        self._invocation.cancel()

    def __del__(self) -> None:
        # In any thread, since collections happen in any.
        if not self._invocation.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._invocation.cancel)

    def __repr__(self) -> str:
        return f"<Stream of {self._invocation!r}>"


async def _items(
    scheduler: Scheduler, call: Call, invocation: Invocation[Any]
) -> AsyncGenerator[Any, None]:
    """Yield the items of a stream as they arrive; leaving the iteration ends the function."""
    state = call.stream
    assert state is not None
    try:
        while True:
            while state.items:
                parts = state.items.popleft()
                large = sum(map(len, parts)) > IN_THREAD
                item = await asyncio.to_thread(load, parts) if large else load(parts)
                state.taken += 1
                if state.taken >= STREAM_AHEAD // 4:
                    scheduler.items_taken(call, state.taken)
                    state.taken = 0
                yield item
            if invocation.done():
                break
            state.waiter = scheduler.loop.create_future()
            invocation.add_done_callback(lambda _: state.wake())
            await state.waiter
        await invocation
    finally:
        invocation.cancel()
