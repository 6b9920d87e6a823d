"""The thread that writes a record, behind the run.

What it is told waits in memory, up to a limit; beyond that it is counted and not kept, so
that a slow disk costs neither memory nor the farm's time.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import operator
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..resources import Resources, astuple
from .entries import CallEntry, ResultEntry, RunEntry, SizeEntry, Snapshot
from .schema import ATTEMPT_COLUMNS, ODD_USAGE, USAGE_NAMES, connect, insert

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

# The interpreter's lock is released once for each statement, and a farm that is busy holds
# it for up to 5 ms before it gives it back: one statement for many rows.
_ROWS = 50

_INVOCATION_COLUMNS = (
    "run",
    "number",
    "category",
    "submitted",
    "ended",
    "outcome",
    "error",
    "stated",
)
_RUNNING_COLUMNS = ("run", "number", "category", "attempt", "node", "cores", "memory", "since")
_NODE_COLUMNS = (
    "run", "name", "kind", "state", "reason", "cores", "memory", "disk", "gpus", "running",
    "cores_in_use", "memory_in_use", "load", "available", "clock",
)  # fmt: skip
_READING_COLUMNS = (
    "run", "at", "node", "running", "cores_in_use", "memory_in_use", "load", "available",
)  # fmt: skip
_RESULT_COLUMNS = (
    "key", "category", "run", "made", "size", "lengths", "data", "file", "digest",
)  # fmt: skip

_used = operator.attrgetter(*USAGE_NAMES)
_UNUSED = (None,) * len(USAGE_NAMES)

# What says that a value is at fault and not the disk.
_UNFIT = (OverflowError, UnicodeError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

_ERROR_KEPT = 2_000  # characters of a message

_Row: TypeAlias = tuple[Any, ...]


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
        self._categories: dict[tuple[str, str], int] = {}
        self._clocks: dict[str, float] = {}
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
            self._begin(connection)
            self._opened.set()
            while not self._ending:
                self._wake.wait(INTERVAL)
                self._wake.clear()
                self._flush(connection)
                self._turn()
            self._flush(connection)
            self._attempt(connection, self._end)
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

    def _begin(self, connection: sqlite3.Connection) -> None:
        entry = self._entry
        cursor = connection.execute(
            "INSERT INTO run (began, seen, host, pid, program, afarm, python, sizer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.began, entry.began, entry.host, entry.pid,
                entry.program, entry.afarm, entry.python, entry.sizer,
            ),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        self.run = cursor.lastrowid

    def _flush(self, connection: sqlite3.Connection) -> None:
        if not self._calls and not self._others:
            return
        calls = _take(self._calls)
        others = _take(self._others)
        written = sum(len(o.data or b"") for o in others if isinstance(o, ResultEntry))
        with self._lock:
            self._bytes -= written

        def write(connection: sqlite3.Connection) -> None:
            self._write_calls(connection, calls)
            self._write_others(connection, others)

        try:
            written = self._attempt(connection, write)
        except _UNFIT:
            self._write_apart(connection, calls, others)
        else:
            self.unrecorded += 0 if written else len(calls)

    def _write_apart(
        self,
        connection: sqlite3.Connection,
        calls: Sequence[CallEntry],
        others: Sequence[Snapshot | SizeEntry | ResultEntry],
    ) -> None:
        """Write all but what SQLite cannot hold: a name that is no text, a number too large."""
        for call in calls:
            self._write_alone(connection, functools.partial(self._write_calls, calls=[call]))
        for other in others:
            self._write_alone(connection, functools.partial(self._write_others, others=[other]))

    def _write_alone(
        self, connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], None]
    ) -> None:
        try:
            written = self._attempt(connection, write)
        except _UNFIT as exc:
            log.warning("the record %s cannot hold something: %s", self._path, exc)
            written = False
        self.unrecorded += not written

    def _attempt(
        self, connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], None]
    ) -> bool:
        """Write in one transaction; return whether that worked. Says so once if it does not.

        Raises:
            _UNFIT: If something of it cannot be written, whatever the disk says.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                write(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except _UNFIT:
            self._categories.clear()  # those of the transaction are not there
            raise
        except sqlite3.Error as exc:
            self._categories.clear()
            if self._failed != str(exc):
                self._failed = str(exc)
                log.error("the record %s cannot be written: %s; the farm goes on", self._path, exc)
            return False
        if self._failed:
            self._failed = ""
            log.warning("the record %s can be written again", self._path)
        return True

    def _write_calls(self, connection: sqlite3.Connection, calls: Sequence[CallEntry]) -> None:
        invocations = []
        attempts: list[_Row] = []
        last: Resources | None = None  # mostly calls have the same, and it is one object
        allocated: _Row = ()
        for call in calls:
            category = self._category(connection, call.category, call.code)
            error = None if call.error is None else describe_error(call.error)
            invocations.append(
                (
                    self.run, call.number, category,
                    call.submitted, call.ended, call.outcome, error, call.stated or None,
                )
            )  # fmt: skip
            for number, node, allocation, usage, outcome in call.attempts:
                used: _Row = _UNUSED
                if usage is not None:
                    used = _used(usage) if not ODD_USAGE else _as_text(_used(usage))
                    self._note_clock(node, call.ended - usage.start - usage.wall_time, usage.start)
                if allocation is not last:
                    last, allocated = allocation, _finite(allocation)
                attempts.append((self.run, call.number, number, node, outcome, *allocated, *used))
        _insert_all(connection, "invocation", _INVOCATION_COLUMNS, invocations)
        _insert_all(connection, "attempt", ATTEMPT_COLUMNS, attempts)

    def _note_clock(self, node: str, behind: float, start: float) -> None:
        """Note how far a node's clock can be behind this one at most: the least that was seen."""
        if start > 0 and behind < self._clocks.get(node, math.inf):
            self._clocks[node] = behind

    def _category(self, connection: sqlite3.Connection, name: str, code: str) -> int:
        known = self._categories.get((name, code))
        if known is None:
            connection.execute(
                "INSERT OR IGNORE INTO category (name, code) VALUES (?, ?)", (name, code)
            )
            [known] = connection.execute(
                "SELECT id FROM category WHERE name = ? AND code = ?", (name, code)
            ).fetchone()
            if len(self._categories) >= MOST_WAITING:
                self._categories.clear()
            self._categories[name, code] = known
        return known

    def _write_others(
        self, connection: sqlite3.Connection, others: Sequence[Snapshot | SizeEntry | ResultEntry]
    ) -> None:
        latest: Snapshot | None = None
        for other in others:
            if isinstance(other, Snapshot):
                latest = other
                if other.keep:
                    self._write_readings(connection, other)
            elif isinstance(other, SizeEntry):
                connection.execute(
                    insert("size", ("sizer", "category", "code", "state", "run", "at")),
                    (other.sizer, other.category, other.code, other.state, self.run, time.time()),
                )
            else:
                connection.execute(
                    insert("result", _RESULT_COLUMNS),
                    (
                        other.key, other.category, self.run, other.made, other.size,
                        ",".join(map(str, other.lengths)), other.data, other.file, other.digest,
                    ),
                )  # fmt: skip
        if latest is not None:
            self._write_present(connection, latest)

    def _write_readings(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        rows = [
            (
                self.run, snapshot.at, node.name, node.running,
                node.cores_in_use, node.memory_in_use, node.load, node.available,
            )
            for node in snapshot.nodes
        ]  # fmt: skip
        _insert_all(connection, "reading", _READING_COLUMNS, rows)

    def _write_present(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        """Write how things stand in the place of how they stood before."""
        counts = {**snapshot.counts, "unrecorded": self.unrecorded}
        connection.execute(
            f"UPDATE run SET seen = ?, {', '.join(f'{name} = ?' for name in counts)} WHERE id = ?",
            (snapshot.at, *counts.values(), self.run),
        )
        connection.execute("DELETE FROM running WHERE run = ?", (self.run,))
        running = [
            (self.run, r.number, r.category, r.attempt, r.node, r.cores, r.memory, r.since)
            for r in snapshot.running
        ]
        _insert_all(connection, "running", _RUNNING_COLUMNS, running)
        connection.execute("DELETE FROM waiting WHERE run = ?", (self.run,))
        waiting = [(self.run, w.number, w.category, w.since, w.why) for w in snapshot.waiting]
        _insert_all(connection, "waiting", ("run", "number", "category", "since", "why"), waiting)
        nodes = []
        for node in snapshot.nodes:
            clock = self._clocks.get(node.name)
            cores, memory, disk, gpus, *_ = _finite(node.capacity)
            nodes.append(
                (
                    self.run, node.name, node.kind, node.state, node.reason, cores, memory, disk,
                    gpus, node.running, node.cores_in_use, node.memory_in_use, node.load,
                    node.available, clock,
                )
            )  # fmt: skip
        _insert_all(connection, "node", _NODE_COLUMNS, nodes)

    def _end(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE run SET ended = ?, seen = ?, unrecorded = ? WHERE id = ?",
            (time.time(), time.time(), self.unrecorded, self.run),
        )
        for table in ("running", "waiting"):
            connection.execute(f"DELETE FROM {table} WHERE run = ?", (self.run,))


def _as_text(used: _Row) -> _Row:
    """Return the values with those as text that SQLite has no type for."""
    return tuple(
        str(value) if at in ODD_USAGE and value is not None else value
        for at, value in enumerate(used)
    )


def describe_error(error: BaseException) -> str:
    """Return an error's type and message, whatever its ``__str__`` does."""
    try:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception as exc:  # the user's code
        text = f"{type(error).__name__} (its message cannot be made: {type(exc).__name__})"
    return text[:_ERROR_KEPT].encode("utf-8", "replace").decode()


def _take(waiting: deque[Any]) -> list[Any]:
    """Take what is there now; more may be added meanwhile."""
    return [waiting.popleft() for _ in range(len(waiting))]


def _finite(resources: Resources) -> _Row:
    """Return the amounts as SQLite keeps them: no limit is NULL, as what is not stated."""
    return tuple(
        None if value is None or math.isinf(value) else value for value in astuple(resources)
    )


def _insert_all(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[_Row]
) -> None:
    whole = len(rows) - len(rows) % _ROWS
    statement = insert(table, columns, _ROWS)
    for begin in range(0, whole, _ROWS):
        values = itertools.chain.from_iterable(rows[begin : begin + _ROWS])
        connection.execute(statement, list(values))
    connection.executemany(insert(table, columns), rows[whole:])
