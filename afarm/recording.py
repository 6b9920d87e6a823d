"""A farm's record, seen from its loop: what is told to the writer, and when."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import views
from ._wire.payloads import Buffer
from .call import Call
from .errors import RecordError
from .explanation import explain
from .memo import Memo
from .record import (
    CallEntry,
    LearnedSizes,
    NodeEntry,
    Results,
    RunEntry,
    RunningEntry,
    SizeEntry,
    Snapshot,
    WaitingEntry,
    Writer,
)
from .sizing import Remembering, Sizer

if TYPE_CHECKING:
    from .scheduler import Scheduler

log = logging.getLogger("afarm")

# How often it is told how things stand, in seconds; a person who watches sees no delay.
SNAPSHOT = 1.0

# Of those, the history keeps at most so many for each doubling of the run's length: a day is 3,500
# rows a node.
_HISTORY = 300

# How often what was learned is written, in seconds; a killed farm forgets no more than that.
_LEARNING = 20.0

# Categories whose state is taken in one turn of the loop: 10 to 50 us each.
_STATES_AT_ONCE = 100

# Calls that are looked at for some that wait, how many are explained, and how many nodes
# each is judged by: 5 ms at most.
_LOOKED_AT = 2_000
_EXPLAINED = 10
_ASKED = 20

# Categories that get back what was learned: more than sizers remember.
_PRIMED = 10_000

# Attempts that a snapshot lists; more than that nobody reads, and each costs 5 us.
_LISTED = 1_000


class Recording:
    """Implements `Recorder` for one farm and one file.

    Args:
        path: The record.
        sizer: The farm's; what it learned is kept, and given back, if it is `Remembering`.

    Raises:
        TypeError: If the path is none.
    """

    def __init__(self, path: str | os.PathLike[str], sizer: Sizer) -> None:
        self.path = Path(path).expanduser().absolute()
        self._sizer_name = _name_of(sizer)
        self._sizer = sizer if isinstance(sizer, Remembering) else None
        self._writer: Writer | None = None
        self._results = Results(self.path)
        self._memo: Memo | None = None
        self._learned = LearnedSizes()
        self._primed: set[str] = set()  # categories that the sizer was given
        # Categories of which something was observed since, and their last code.
        self._fresh: dict[str, str] = {}
        self._submitted: dict[int, float] = {}
        self._running: dict[int, tuple[Call, float]] = {}
        self._recalled = 0
        self._run = 0
        self._scheduler: Scheduler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._kept_at = self._learned_at = 0.0

    # --- life

    async def open(self) -> None:
        """Open the record, or make it, and read what was learned.

        Raises:
            RecordError: If it cannot be used.
        """
        self._began = self._learned_at = time.time()
        writer, self._learned = await asyncio.to_thread(self._open)
        self._writer = writer
        self._run = writer.run
        self._memo = Memo(self._results, writer)

    def _open(self) -> tuple[Writer, LearnedSizes]:
        """Open the record and read what was learned; blocks."""
        writer = Writer(
            self.path,
            RunEntry(
                began=self._began,
                host=socket.gethostname(),
                pid=os.getpid(),
                program=" ".join(sys.argv)[:500],
                afarm=_version(),
                python=platform.python_version(),
                sizer=self._sizer_name,
            ),
        )
        writer.open()
        if self._sizer is None:
            return writer, LearnedSizes()
        try:
            return writer, LearnedSizes.read(self.path, self._sizer_name)
        except RecordError as exc:
            log.warning("%s; sizes are learned anew", exc)
            return writer, LearnedSizes()

    def follow(self, scheduler: Scheduler) -> None:
        """Note from now on how this farm stands."""
        self._scheduler = scheduler
        self._snap()

    async def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self._scheduler is not None:
            writer.put(self._snapshot(self._scheduler, keep=True))
        while self._fresh:
            self._write_learned(writer)
        # The last to let go of the file puts its log into it, and must be able to write.
        await asyncio.to_thread(self._results.close)
        await asyncio.to_thread(writer.close)
        if writer.unrecorded:
            log.warning(
                "%d calls are not in the record %s: the disk could not follow",
                writer.unrecorded,
                self.path,
            )

    @property
    def run(self) -> int:
        """The number of this run in the record; 0 before it was opened."""
        return self._run

    def wait_written(self) -> None:
        """Return when what has happened until now is in the file; blocks; from any thread."""
        writer = self._writer
        if writer is not None:
            writer.wait_written()

    # --- calls: Recorder

    def submitted(self, call: Call) -> None:
        """A call was taken."""
        self._submitted[call.id] = time.time()

    def started(self, call: Call) -> None:
        """An attempt was given to a node."""
        self._running[call.id] = (call, time.time())

    def ended(self, call: Call) -> None:
        """A call is over."""
        self._running.pop(call.id, None)
        now = time.time()
        submitted = self._submitted.pop(call.id, now)
        if self._writer is None:
            return
        memo = call.memo
        if memo is not None and self._memo is not None:
            self._memo.over(memo)
        future = call.future
        outcome = "returned" if memo is None or not memo.recalled else "recalled"
        self._recalled += outcome == "recalled"
        error = None
        if future is not None:
            if future.cancelled():
                outcome = "cancelled"
            # Asking for it in the ordinary way would count as having looked at it.
            elif (error := getattr(future, "_exception", None)) is not None:
                outcome = "failed"
        target = call.target
        category = target.category
        if call.attempts:
            self._fresh[category] = target.code
        self._writer.call(
            CallEntry(
                call.id, category, target.code, submitted, now, outcome, error,
                call.attempts, target.told, call.sized_by,
            )
        )  # fmt: skip

    async def recall(self, call: Call) -> Sequence[Buffer] | None:
        """Return the result of a call that was made before, if it may be used again."""
        return await self._memo.recall(call) if self._memo is not None else None

    async def keep(self, call: Call, parts: Sequence[Buffer]) -> None:
        """Keep a result, before anybody can change its buffers."""
        if self._memo is not None:
            await self._memo.keep(call, parts)

    # --- what was learned

    def prime(self, category: str, code: str) -> None:
        """Give the sizer what earlier runs have shown of a category, before its first call."""
        if self._sizer is None or category in self._primed or len(self._primed) >= _PRIMED:
            return
        self._primed.add(category)
        learned = self._learned.of(category, code)
        if learned is not None:
            self._guarded(lambda sizer: sizer.load({category: learned.state}, trust=learned.trust))

    def _write_learned(self, writer: Writer) -> None:
        """Hand on what the sizer knows of categories of which it has seen more."""
        names = [name for name, _ in zip(self._fresh, range(_STATES_AT_ONCE), strict=False)]
        codes = {name: self._fresh.pop(name) for name in names}
        for category, state in (self._guarded(lambda sizer: _dump(sizer, names)) or {}).items():
            writer.put(SizeEntry(self._sizer_name, category, codes.get(category, ""), state))

    def _guarded(
        self, ask: Callable[[Remembering], dict[str, str] | None]
    ) -> dict[str, str] | None:
        """Ask the sizer, which may be the user's code: a fault in it costs what it knows."""
        if self._sizer is None:
            return None
        try:
            return ask(self._sizer)
        except Exception:
            log.exception("the sizer's state is not kept any more")
            self._sizer = None
            return None

    # --- how things stand

    def _snap(self) -> None:
        scheduler, writer = self._scheduler, self._writer
        if scheduler is None or writer is None:
            return
        now = time.time()
        keep = now - self._kept_at >= max(SNAPSHOT, (now - self._began) / _HISTORY)
        if keep:
            self._kept_at = now
        writer.put(self._snapshot(scheduler, keep=keep))
        if now - self._learned_at >= _LEARNING:
            self._write_learned(writer)
            if not self._fresh:
                self._learned_at = now
        self._timer = scheduler.loop.call_later(SNAPSHOT, self._snap)

    def _snapshot(self, scheduler: Scheduler, *, keep: bool) -> Snapshot:
        tally = scheduler.tally
        running = [
            RunningEntry(
                call.id,
                call.category,
                call.attempt,
                call.node or "",
                call.attempts[-1][2].cores if call.attempts else None,
                call.attempts[-1][2].memory if call.attempts else None,
                since,
            )
            for (call, since), _ in zip(self._running.values(), range(_LISTED), strict=False)
        ]
        counts = {
            "waiting": max(0, len(scheduler.calls) - len(self._running)),
            "running": len(self._running),
            "returned": tally.returned - self._recalled,
            "recalled": self._recalled,
            "failed": tally.failed,
            "cancelled": tally.cancelled,
            "evictions": tally.evictions,
        }
        nodes = [_node_entry(node) for node in views.nodes(scheduler)]
        return Snapshot(time.time(), counts, nodes, running, keep, self._waiting(scheduler))

    def _waiting(self, scheduler: Scheduler) -> list[WaitingEntry]:
        """Return what has waited longest, one of each category, and why."""
        found: dict[str, Call] = {}
        # In the order in which they were submitted.
        for call in itertools.islice(scheduler.calls.values(), _LOOKED_AT):
            if call.id not in self._running and len(found) < _EXPLAINED:
                found.setdefault(call.category, call)
        return [
            WaitingEntry(
                call.id,
                call.category,
                self._submitted.get(call.id, self._began),
                explain(scheduler, call, nodes=_ASKED).why,
            )
            for call in found.values()
        ]


def _node_entry(node: views.NodeInfo) -> NodeEntry:
    return NodeEntry(
        name=node.name,
        kind=node.kind,
        state=node.state,
        reason=node.reason,
        capacity=node.capacity,
        running=node.running,
        cores_in_use=node.in_use.cores or 0.0,
        memory_in_use=node.in_use.memory or 0,
        load=node.load,
        available=node.available,
    )


def _dump(sizer: Remembering, categories: Sequence[str]) -> dict[str, str]:
    return {name: json.dumps(state) for name, state in sizer.dump(categories).items()}


def _version() -> str:
    try:
        return importlib.metadata.version("afarm")
    except importlib.metadata.PackageNotFoundError:  # run from where its source lies
        return ""


def _name_of(sizer: Sizer) -> str:
    kind = type(sizer)
    own = kind.__module__.startswith("afarm.")
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"
