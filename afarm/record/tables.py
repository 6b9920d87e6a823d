"""What of a run is written where: from entries to the rows of a record's tables."""

from __future__ import annotations

import itertools
import math
import operator
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..resources import Resources, astuple
from .entries import CallEntry, ResultEntry, RunEntry, SizeEntry, Snapshot
from .schema import ATTEMPT_COLUMNS, ODD_USAGE, USAGE_NAMES, insert

# The interpreter's lock is released once for each statement, and a farm that is busy holds
# it for up to 5 ms before it gives it back: one statement for many rows.
_ROWS = 50

_INVOCATION_COLUMNS = (
    "run", "number", "category", "submitted", "ended", "outcome", "error", "stated",
    "sized_by", "sized_from",
)  # fmt: skip
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
_BY_NOTHING = (None, None)
_UNUSED = (None,) * (len(USAGE_NAMES) + 1)

# Categories whose numbers are remembered.
_MOST_CATEGORIES = 50_000

_ERROR_KEPT = 2_000  # characters of a message

_Row: TypeAlias = tuple[Any, ...]


class RunTables:
    """Writes one run, in transactions that are somebody else's.

    Args:
        connection: To the record.
        entry: What is known of the run at its beginning; written at once.

    Attributes:
        run: Its number in the record.
    """

    def __init__(self, connection: sqlite3.Connection, entry: RunEntry) -> None:
        self._connection = connection
        self._categories: dict[tuple[str, str], int] = {}
        self._clocks: dict[str, float] = {}
        self.run = self._begin(entry)

    def _begin(self, entry: RunEntry) -> int:
        cursor = self._connection.execute(
            "INSERT INTO run (began, seen, host, pid, program, afarm, python, sizer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.began, entry.began, entry.host, entry.pid,
                entry.program, entry.afarm, entry.python, entry.sizer,
            ),
        )  # fmt: skip
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is written inside together, or nothing of it.

        Raises:
            sqlite3.Error: If it could not be written.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except BaseException:
            self._categories.clear()  # those that it made are not there
            raise

    def write_calls(self, calls: Sequence[CallEntry]) -> None:
        """Write invocations that are over, with their attempts."""
        invocations = []
        attempts: list[_Row] = []
        last: Resources | None = None  # mostly calls have the same, and it is one object
        allocated: _Row = ()
        for call in calls:
            category = self._category(call.category, call.code)
            error = None if call.error is None else describe_error(call.error)
            invocations.append(
                (
                    self.run, call.number, category,
                    call.submitted, call.ended, call.outcome, error, call.stated or None,
                    *(call.sized_by or _BY_NOTHING),
                )
            )  # fmt: skip
            for number, node, allocation, usage, outcome in call.attempts:
                used: _Row = _UNUSED
                if usage is not None:
                    used = _used(usage) if not ODD_USAGE else _as_text(_used(usage))
                    used = (*used, max(usage.gpu_memory, default=None))
                    self._note_clock(node, call.ended - usage.start - usage.wall_time, usage.start)
                if allocation is not last:
                    last, allocated = allocation, _finite(allocation)
                attempts.append((self.run, call.number, number, node, outcome, *allocated, *used))
        _insert_all(self._connection, "invocation", _INVOCATION_COLUMNS, invocations)
        _insert_all(self._connection, "attempt", ATTEMPT_COLUMNS, attempts)

    def _note_clock(self, node: str, behind: float, start: float) -> None:
        """Note how far a node's clock can be behind this one at most: the least that was seen."""
        if start > 0 and behind < self._clocks.get(node, math.inf):
            self._clocks[node] = behind

    def _category(self, name: str, code: str) -> int:
        known = self._categories.get((name, code))
        if known is None:
            self._connection.execute(
                "INSERT OR IGNORE INTO category (name, code) VALUES (?, ?)", (name, code)
            )
            [known] = self._connection.execute(
                "SELECT id FROM category WHERE name = ? AND code = ?", (name, code)
            ).fetchone()
            if len(self._categories) >= _MOST_CATEGORIES:
                self._categories.clear()
            self._categories[name, code] = known
        return known

    def write_others(
        self, others: Sequence[Snapshot | SizeEntry | ResultEntry], unrecorded: int
    ) -> None:
        """Write all else.

        Args:
            others: In order; of several snapshots the last says what is so now.
            unrecorded: Calls that were not kept so far.
        """
        latest: Snapshot | None = None
        for other in others:
            if isinstance(other, Snapshot):
                latest = other
                if other.keep:
                    self._write_readings(other)
            elif isinstance(other, SizeEntry):
                self._connection.execute(
                    insert("size", ("sizer", "category", "code", "state", "run", "at")),
                    (other.sizer, other.category, other.code, other.state, self.run, time.time()),
                )
            else:
                self._connection.execute(
                    insert("result", _RESULT_COLUMNS),
                    (
                        other.key, other.category, self.run, other.made, other.size,
                        ",".join(map(str, other.lengths)), other.data, other.file, other.digest,
                    ),
                )  # fmt: skip
        if latest is not None:
            self._write_present(latest, unrecorded)

    def _write_readings(self, snapshot: Snapshot) -> None:
        rows = [
            (
                self.run, snapshot.at, node.name, node.running,
                node.cores_in_use, node.memory_in_use, node.load, node.available,
            )
            for node in snapshot.nodes
        ]  # fmt: skip
        _insert_all(self._connection, "reading", _READING_COLUMNS, rows)

    def _write_present(self, snapshot: Snapshot, unrecorded: int) -> None:
        """Write how things stand in the place of how they stood before."""
        counts = {**snapshot.counts, "unrecorded": unrecorded}
        self._connection.execute(
            f"UPDATE run SET seen = ?, {', '.join(f'{name} = ?' for name in counts)} WHERE id = ?",
            (snapshot.at, *counts.values(), self.run),
        )
        self._connection.execute("DELETE FROM running WHERE run = ?", (self.run,))
        running = [
            (self.run, r.number, r.category, r.attempt, r.node, r.cores, r.memory, r.since)
            for r in snapshot.running
        ]
        _insert_all(self._connection, "running", _RUNNING_COLUMNS, running)
        self._connection.execute("DELETE FROM waiting WHERE run = ?", (self.run,))
        waiting = [(self.run, w.number, w.category, w.since, w.why) for w in snapshot.waiting]
        _insert_all(
            self._connection, "waiting", ("run", "number", "category", "since", "why"), waiting
        )
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
        _insert_all(self._connection, "node", _NODE_COLUMNS, nodes)

    def end(self, unrecorded: int) -> None:
        """Note that the run has ended in good order."""
        self._connection.execute(
            "UPDATE run SET ended = ?, seen = ?, unrecorded = ? WHERE id = ?",
            (time.time(), time.time(), unrecorded, self.run),
        )
        for table in ("running", "waiting"):
            self._connection.execute(f"DELETE FROM {table} WHERE run = ?", (self.run,))


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
