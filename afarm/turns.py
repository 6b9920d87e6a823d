"""When the farm acts: events are gathered, and handled together once per turn of the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ._core import events as event
from .resources import Seconds

log = logging.getLogger("afarm")

# Events that one turn of the loop handles. Each costs 2 to 10 us with what follows from it,
# and nobody else's turn should have to wait longer than 20 ms.
EVENTS_AT_ONCE = 500


class Turns:
    """One farm's share of its loop: the events of the next turn, its clock, its tasks.

    Args:
        handle: Handles the events of one turn; not called without any.
    """

    def __init__(self, handle: Callable[[list[event.Event]], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._handle = handle
        self._events: list[event.Event] = []
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None

    def now(self) -> Seconds:
        """Return the time that events carry."""
        return Seconds(self.loop.time())

    def post(self, happened: event.Event) -> None:
        """Have an event handled soon, with whatever else happens until then."""
        self._events.append(happened)
        if not self._due:
            self._due = True
            self.loop.call_soon(self._turn)

    def flush(self) -> None:
        """Handle now what has been posted: nothing more is to be expected in this turn."""
        if self._events:
            self._turn()

    def _turn(self) -> None:
        self._due = False
        events, self._events = self._events[:EVENTS_AT_ONCE], self._events[EVENTS_AT_ONCE:]
        if self._events:
            self._due = True
            self.loop.call_soon(self._turn)
        if events:
            self._handle(events)

    def wake_at(self, at: float) -> None:
        """Post a tick at this time, unless one is due before it."""
        if self._wake is not None:
            if self._wake.when() <= at and not self._wake.cancelled():
                return
            self._wake.cancel()
        self._wake = self.loop.call_at(at, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.post(event.Tick(self.now()))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what has to wait for something, beside the turns."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a fault inside the farm, please report it", exc_info=task.exception())

    async def end(self) -> None:
        """Cancel what was spawned and return when it has ended."""
        if self._wake is not None:
            self._wake.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
