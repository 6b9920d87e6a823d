"""The thread that writes a record, behind the run.

What it is told waits in memory, up to a limit; beyond that it is counted and not kept, so
that a slow disk costs neither memory nor the farm's time.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .entries import CallEntry, ResultEntry, RunEntry, SizeEntry, Snapshot
from .schema import connect
from .tables import RunTables

log = logging.getLogger("afarm")

# Seconds between two batches: what a killed farm loses of its record at most, and a rate
# at which a commit (0.1 to 10 ms) does not count.
INTERVAL = 0.25

# So many calls wake it earlier: half a second of the fastest.
BATCH = 4_000

# Calls that wait to be written; each holds about 1 kB.
MOST_WAITING = 50_000

# Bytes of results that wait to be written.
MOST_BYTES = 64 << 20

# What says that a value is at fault and not the disk.
_UNFIT = (OverflowError, UnicodeError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class Writer:
    """Writes one farm's run into a record, in a thread of its own.

    Args:
        path: The record.
        run: What is known of the run at its beginning.

    Attributes:
        run: Its number in the record.
        unrecorded: Calls that were not kept, because the disk could not follow.
    """

    def __init__(self, path: Path, run: RunEntry) -> None:
        self.run = 0
        self.unrecorded = 0
        self._path = path
        self._entry = run
        self._calls: deque[CallEntry] = deque()
        self._others: deque[Snapshot | SizeEntry | ResultEntry] = deque()
        self._bytes = 0
        self._lock = threading.Lock()  # of the bytes, which both sides count
        self._wake = threading.Event()
        self._flushed = threading.Condition()
        self._turns = self._wanted = 0
        self._ended = False
        self._ending = False
        self._failed = ""
        self._opened = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="afarm-record", daemon=True)

    def open(self) -> None:
        """Begin; blocks until the run has a number.

        Raises:
            RecordError: If the record cannot be used.
        """
        self._thread.start()
        self._opened.wait()
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Write what is left; blocks until that is done."""
        self._ending = True
        self._wake.set()
        self._thread.join()

    def wait_written(self) -> None:
        """Return when what was told until now is written, or could not be; blocks."""
        with self._flushed:
            # The turn that is under way may have begun before this; the one after it has not.
            wanted = self._wanted = self._turns + 2
            self._wake.set()
            self._flushed.wait_for(lambda: self._turns >= wanted or self._ended)

    # --- from the farm's loop: no waiting

    def call(self, entry: CallEntry) -> None:
        """Take an invocation that is over."""
        calls = self._calls
        if len(calls) >= MOST_WAITING:
            self.unrecorded += 1
            return
        calls.append(entry)
        if len(calls) == BATCH:
            self._wake.set()

    def put(self, entry: Snapshot | SizeEntry) -> None:
        """Take how things stand, or what was learned."""
        if len(self._others) < MOST_WAITING:
            self._others.append(entry)

    def result(self, entry: ResultEntry) -> bool:
        """Take a result to keep; return whether there is room for it."""
        size = len(entry.data or b"")
        with self._lock:
            if self._bytes + size > MOST_BYTES:
                return False
            self._bytes += size
        self._others.append(entry)
        return True

    # --- the thread

    def _work(self) -> None:
        try:
            connection = connect(self._path)
        except BaseException as exc:
            self._problem = exc
            self._opened.set()
            return
        try:
            tables = RunTables(connection, self._entry)
            self.run = tables.run
            self._opened.set()
            while not self._ending:
                self._wake.wait(INTERVAL)
                self._wake.clear()
                self._flush(tables)
                self._turn()
            self._flush(tables)
            self._attempt(tables, lambda: tables.end(self.unrecorded))
        except BaseException as exc:
            self._problem = exc
            log.exception("the record %s is not written any more", self._path)
        finally:
            self._opened.set()
            connection.close()
            self._turn(last=True)

    def _turn(self, *, last: bool = False) -> None:
        with self._flushed:
            self._turns += 1
            self._ended = self._ended or last
            self._flushed.notify_all()
            if not last and self._wanted > self._turns:
                self._wake.set()

    def _flush(self, tables: RunTables) -> None:
        if not self._calls and not self._others:
            return
        calls = _take(self._calls)
        others = _take(self._others)
        size = sum(len(o.data or b"") for o in others if isinstance(o, ResultEntry))
        with self._lock:
            self._bytes -= size

        def write() -> None:
            tables.write_calls(calls)
            tables.write_others(others, self.unrecorded)

        try:
            written = self._attempt(tables, write)
        except _UNFIT:
            self._write_apart(tables, calls, others)
        else:
            self.unrecorded += 0 if written else len(calls)

    def _write_apart(
        self,
        tables: RunTables,
        calls: Sequence[CallEntry],
        others: Sequence[Snapshot | SizeEntry | ResultEntry],
    ) -> None:
        """Write all but what SQLite cannot hold: a name that is no text, a number too large."""
        for call in calls:
            self._write_alone(tables, functools.partial(tables.write_calls, [call]))
        for other in others:
            self._write_alone(
                tables, functools.partial(tables.write_others, [other], self.unrecorded)
            )

    def _write_alone(self, tables: RunTables, write: Callable[[], None]) -> None:
        try:
            written = self._attempt(tables, write)
        except _UNFIT as exc:
            log.warning("the record %s cannot hold something: %s", self._path, exc)
            written = False
        self.unrecorded += not written

    def _attempt(self, tables: RunTables, write: Callable[[], None]) -> bool:
        """Write in one transaction; return whether that worked. Says so once if it does not.

        Raises:
            _UNFIT: If something of it cannot be written, whatever the disk says.
        """
        try:
            with tables.transaction():
                write()
        except _UNFIT:
            raise
        except sqlite3.Error as exc:
            if self._failed != str(exc):
                self._failed = str(exc)
                log.error("the record %s cannot be written: %s; the farm goes on", self._path, exc)
            return False
        if self._failed:
            self._failed = ""
            log.warning("the record %s can be written again", self._path)
        return True


def _take(waiting: deque[Any]) -> list[Any]:
    """Take what is there now; more may be added meanwhile."""
    return [waiting.popleft() for _ in range(len(waiting))]
