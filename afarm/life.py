"""The life of a farm, from its nodes to its end; all of its views share one."""

from __future__ import annotations

import asyncio
import functools
import os
from asyncio import _get_running_loop
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import views
from ._core.sizers.base import features_wanted
from .display import Display
from .errors import NoNodesError
from .scheduler import Scheduler
from .sizing import Sizer
from .tracing import Tracings

if TYPE_CHECKING:
    from .recording import Recording


class Life:
    """What a farm is made of, and whether it is open.

    Args:
        nodes: What it runs on at first.
        sizer: Says what calls need.
        progress: Whether it shows how it stands; ``None``: where somebody can see that.
        record: The file that keeps its calls, if one does.
    """

    def __init__(
        self,
        nodes: list[Any],
        sizer: Sizer,
        progress: bool | None,
        record: str | os.PathLike[str] | None,
    ) -> None:
        self.nodes = nodes
        self.sizer = sizer
        self.wants_features = features_wanted(sizer)
        self.tracings = Tracings()
        self.recording: Recording | None = None
        if record is not None:
            # Who keeps no record need not wait for a database to be imported.
            from .recording import Recording

            self.recording = Recording(record, sizer)
        self._progress = progress
        self.phase = "new"  # new, opening, open, closing, closed
        self._closed: asyncio.Future[None] | None = None  # what a second `close` waits for
        self._loop: asyncio.AbstractEventLoop | None = None
        self.scheduler: Scheduler | None = None
        self._display: Display | None = None

    # --- its beginning

    async def open(self, *, silence: float, show_output: bool) -> None:
        """Open the nodes; return when the first is up.

        Args:
            silence: Seconds without a sign of life from here after which a node ends what it runs.
            show_output: Whether what functions print appears here.

        Raises:
            NoNodesError: If none could be opened.
            RecordError: If the record cannot be used.
            RuntimeError: If it was opened before.
        """
        if self.phase != "new":
            raise RuntimeError("a farm is opened once: make a new Farm")
        self.phase = "opening"
        self._loop = asyncio.get_running_loop()
        if self.recording is not None:
            try:
                await self.recording.open()
            except BaseException:
                self.phase = "closed"
                raise
        self.scheduler = Scheduler(
            self.sizer,
            silence=silence,
            show_output=show_output,
            recorder=self.recording,
        )
        try:
            tries = [self.scheduler.add_node(node) for node in self.nodes]
            await self._wait_first_node(tries)
        except BaseException:
            self.phase = "closed"
            await self.scheduler.close()
            if self.recording is not None:
                await self.recording.close()
            raise
        self.phase = "open"
        if self.recording is not None:
            self.recording.follow(self.scheduler)
        self._display = Display(
            functools.partial(views.progress, self.scheduler), progress=self._progress
        )
        self._display.start()

    async def _wait_first_node(self, tries: Sequence[asyncio.Future[str | None]]) -> None:
        """Return when one try succeeded; raise when all have failed."""
        waiting: set[asyncio.Future[str | None]] = set(tries)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(one.result() is None for one in done):
                return
        reasons = {
            node.name: str(one.result()) for node, one in zip(self.nodes, tries, strict=True)
        }
        lines = "\n".join(f"  {reason}" for reason in reasons.values())
        raise NoNodesError(f"no node could be opened:\n{lines}", reasons=reasons)

    # --- while it is open

    def running(self) -> Scheduler:
        """Return the scheduler if calls can be taken now and here.

        Raises:
            RuntimeError: If not; it says why.
        """
        if self.phase != "open" or _get_running_loop() is not self._loop:
            raise self._misuse()
        assert self.scheduler is not None
        return self.scheduler

    def _misuse(self) -> RuntimeError:
        """Return the error for a call that cannot be taken now, or here."""
        if self.phase in ("closing", "closed"):
            return RuntimeError("this farm is closed: make a new Farm")
        if self.phase != "open":
            return RuntimeError(
                "this farm is not open: use it inside 'async with Farm(...) as farm:' or call "
                "'await farm.open()' first"
            )
        return RuntimeError(
            "a farm is used on the event loop that opened it, and this is another thread or "
            "loop: from synchronous code use afarm.Executor"
        )

    # --- its end

    async def close(self, *, cancel: bool, interrupted: bool = False) -> None:
        """Wait for what was submitted, then end everything on the nodes.

        Args:
            cancel: Cancel what is not over instead of waiting for it.
            interrupted: Whether this is the answer to a cancellation, as to a first Ctrl-C.
        """
        scheduler = self.scheduler
        if self.phase == "new":
            self.phase = "closed"
        if scheduler is None or self.phase not in ("open", "closing"):
            return
        if cancel:
            scheduler.cancel_all()
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self.phase = "closing"
        self._closed = asyncio.get_running_loop().create_future()
        try:
            await _end(scheduler, interrupted)
        finally:
            if self.recording is not None:
                await self.recording.close()
            self.phase = "closed"
            self._closed.set_result(None)
            if self._display is not None:
                await self._display.stop()
            scheduler.tell_unseen()


async def _end(scheduler: Scheduler, interrupted: bool) -> None:
    """Wait until nothing runs, then close the connections.

    Args:
        scheduler: Of this farm.
        interrupted: Whether this is already the answer to a cancellation, as to a
            first Ctrl-C: at the next one it does not wait any more.
    """
    # Of these nobody will take another item, and their nodes would wait for that.
    scheduler.cancel_streams_of(asyncio.current_task())
    scheduler.give_up_without_nodes()
    hurry = True
    try:
        try:
            await scheduler.wait_idle()
        except asyncio.CancelledError:
            scheduler.cancel_all()
            if not interrupted:
                await scheduler.wait_idle()
                hurry = False
            raise
        hurry = False
    finally:
        await scheduler.close(hurry=hurry)
