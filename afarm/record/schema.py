"""The tables of a record and its views: what `afarm.record` documents, as SQL."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ..errors import RecordError
from ..resources import RESOURCE_NAMES, Usage

# Raised when a reader of the last version would misunderstand what is written; columns
# and tables that are only added do not raise it.
VERSION = 1

# "AFRM": in the file's header, so that `file` and we know a record from another database.
_APPLICATION = 0x4146524D

# Another farm writes for a few milliseconds at a time, and now and then copies what it has
# written into the main file; a disk that is busy makes seconds of it.
LOCK_TIMEOUT = 30.0

# Seconds until a lock that SQLite does not wait for is asked for again.
_PAUSE = 0.01

_USAGE_FIELDS = [field for field in fields(Usage) if field.name not in ("curve", "gpu_memory")]
USAGE_NAMES = tuple(field.name for field in _USAGE_FIELDS)
_SQL_TYPES = {"float": "REAL", "int": "INTEGER", "bool": "INTEGER", "str": "TEXT"}
_USAGE_TYPES = {
    field.name: _SQL_TYPES.get(str(field.type).partition(" ")[0], "") for field in _USAGE_FIELDS
}
# Where among them is what SQLite has no type for; it is kept as text.
ODD_USAGE = tuple(at for at, kind in enumerate(_USAGE_TYPES.values()) if not kind)
_RESOURCE_TYPES = dict.fromkeys(RESOURCE_NAMES, "INTEGER") | dict.fromkeys(
    ("cores", "wall_time", "cpu_time"), "REAL"
)

ATTEMPT_COLUMNS = (
    "run",
    "number",
    "attempt",
    "node",
    "outcome",
    *(f"allocated_{name}" for name in RESOURCE_NAMES),
    *(f"used_{name}" for name in USAGE_NAMES),
    "used_gpu_memory",
)

_ATTEMPT_TYPES = {
    "run": "INTEGER",
    "number": "INTEGER",
    "attempt": "INTEGER",
    "node": "TEXT",
    "outcome": "TEXT",
    **{f"allocated_{name}": kind for name, kind in _RESOURCE_TYPES.items()},
    **{f"used_{name}": kind or "TEXT" for name, kind in _USAGE_TYPES.items()},
    "used_gpu_memory": "INTEGER",
}

TABLES = f"""
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, began REAL NOT NULL, seen REAL NOT NULL, ended REAL,
    host TEXT, pid INTEGER, program TEXT, afarm TEXT, python TEXT, sizer TEXT,
    waiting INTEGER DEFAULT 0, running INTEGER DEFAULT 0, returned INTEGER DEFAULT 0,
    failed INTEGER DEFAULT 0, cancelled INTEGER DEFAULT 0, recalled INTEGER DEFAULT 0,
    evictions INTEGER DEFAULT 0, unrecorded INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS category (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL, UNIQUE (name, code)
);
CREATE TABLE IF NOT EXISTS invocation (
    run INTEGER NOT NULL, number INTEGER NOT NULL, category INTEGER NOT NULL,
    submitted REAL, ended REAL, outcome TEXT NOT NULL, error TEXT, stated TEXT,
    sized_by TEXT, sized_from REAL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
    run INTEGER NOT NULL, number INTEGER NOT NULL, category TEXT, since REAL, why TEXT,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempt (
    {", ".join(f"{name} {kind}" for name, kind in _ATTEMPT_TYPES.items())},
    PRIMARY KEY (run, number, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS running (
    run INTEGER NOT NULL, number INTEGER NOT NULL, category TEXT, attempt INTEGER, node TEXT,
    cores REAL, memory INTEGER, since REAL, PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node (
    run INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT, state TEXT, reason TEXT,
    cores REAL, memory INTEGER, disk INTEGER, gpus INTEGER, running INTEGER,
    cores_in_use REAL, memory_in_use INTEGER, load REAL, available INTEGER, clock REAL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reading (
    run INTEGER NOT NULL, at REAL NOT NULL, node TEXT NOT NULL, running INTEGER,
    cores_in_use REAL, memory_in_use INTEGER, load REAL, available INTEGER,
    PRIMARY KEY (run, at, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS size (
    sizer TEXT NOT NULL, category TEXT NOT NULL, code TEXT NOT NULL, state TEXT NOT NULL,
    run INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (sizer, category, code)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS result (
    key TEXT PRIMARY KEY, category TEXT, run INTEGER, made REAL, size INTEGER NOT NULL,
    lengths TEXT NOT NULL, data BLOB, file TEXT, digest TEXT
) WITHOUT ROWID;
"""

# Of an attempt that was measured, the node's own clock tells the beginning; `node.clock` is
# what is to be added for the farm's.
VIEWS = {
    "runs": """
        SELECT id AS run, datetime(began, 'unixepoch') AS began,
            round(coalesce(ended, seen) - began, 1) AS seconds,
            CASE WHEN ended IS NOT NULL THEN 'closed' ELSE 'open or killed' END AS state,
            host, pid, program, afarm, python, sizer, waiting, running, returned, failed,
            cancelled, recalled, evictions, unrecorded
        FROM run""",
    "attempts": """
        SELECT a.run, a.number, a.attempt, c.name AS category, a.node, a.outcome,
            datetime(a.used_start + coalesce(n.clock, 0), 'unixepoch') AS started,
            a.used_wall_time AS wall_time, a.used_cpu_user + a.used_cpu_system AS cpu_time,
            a.allocated_cores AS allocated_cores,
            round(a.allocated_memory / 1048576.0, 1) AS allocated_mib,
            round(a.used_memory / 1048576.0, 1) AS memory_mib,
            round(a.used_memory_resident / 1048576.0, 1) AS resident_mib,
            round(a.used_gpu_memory / 1048576.0, 1) AS gpu_mib,
            round(a.used_disk / 1048576.0, 1) AS disk_mib,
            a.used_read_bytes AS read_bytes, a.used_write_bytes AS write_bytes,
            a.used_processes AS processes, a.used_threads AS threads, a.used_exit AS exit
        FROM attempt a JOIN invocation i USING (run, number) JOIN category c ON c.id = i.category
        LEFT JOIN node n ON n.run = a.run AND n.name = a.node""",
    "invocations": """
        SELECT i.run, i.number, c.name AS category, i.outcome,
            datetime(i.submitted, 'unixepoch') AS submitted,
            round(i.ended - i.submitted, 6) AS seconds, count(a.attempt) AS attempts,
            sum(a.used_wall_time) AS wall_time,
            sum(a.used_cpu_user + a.used_cpu_system) AS cpu_time,
            round(max(a.used_memory) / 1048576.0, 1) AS memory_mib, i.stated,
            i.sized_by, i.sized_from, i.error
        FROM invocation i JOIN category c ON c.id = i.category
        LEFT JOIN attempt a USING (run, number) GROUP BY i.run, i.number""",
    "categories": """
        SELECT i.run, c.name AS category, count(DISTINCT i.number) AS calls,
            count(a.attempt) AS attempts,
            count(DISTINCT CASE WHEN i.outcome = 'failed' THEN i.number END) AS failed,
            round(avg(a.used_wall_time), 6) AS mean_wall_time,
            round(sum(a.used_cpu_user + a.used_cpu_system), 3) AS cpu_time,
            round(avg(a.used_memory) / 1048576.0, 1) AS mean_mib,
            round(max(a.used_memory) / 1048576.0, 1) AS max_mib,
            round(avg(a.allocated_memory) / 1048576.0, 1) AS mean_allocated_mib,
            round(sum(min(a.used_memory, a.allocated_memory) * a.used_wall_time)
                / sum(a.allocated_memory * a.used_wall_time), 3) AS memory_efficiency
        FROM invocation i JOIN category c ON c.id = i.category
        LEFT JOIN attempt a USING (run, number) GROUP BY i.run, c.name""",
    "failures": """
        SELECT i.run, c.name AS category, i.error, count(*) AS calls, min(i.number) AS first
        FROM invocation i JOIN category c ON c.id = i.category
        WHERE i.outcome = 'failed' GROUP BY i.run, c.name, i.error""",
    "features": """
        SELECT i.run, c.name AS category, i.sized_by AS feature, count(*) AS calls,
            min(i.sized_from) AS least, max(i.sized_from) AS most
        FROM invocation i JOIN category c ON c.id = i.category
        WHERE i.sized_by IS NOT NULL GROUP BY i.run, c.name, i.sized_by""",
    "nodes": """
        SELECT run, name, kind, state, reason, cores, round(memory / 1073741824.0, 2) AS memory_gib,
            running, cores_in_use, round(memory_in_use / 1073741824.0, 2) AS memory_in_use_gib,
            load, round(available / 1073741824.0, 2) AS available_gib
        FROM node""",
    "results": """
        SELECT key, category, run, datetime(made, 'unixepoch') AS made, size,
            CASE WHEN file IS NULL THEN 'here' ELSE file END AS lies
        FROM result""",
}


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to write with, the tables and views made; blocks.

    Raises:
        RecordError: If it cannot be opened, or is not a record, or one of a later version.
    """
    _make_private(path)
    try:
        connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as exc:
        raise RecordError(f"the record {path} cannot be opened: {exc}") from exc
    try:
        _prepare(connection, path)
    except BaseException as exc:
        connection.close()
        if isinstance(exc, sqlite3.Error):
            raise RecordError(
                f"the record {path} cannot be used: {exc}; give record= another file"
            ) from exc
        raise
    return connection


def connect_to_read(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Return a connection that only reads; blocks.

    Args:
        path: The record.
        any_thread: Whether other threads will use it too, one at a time.

    Raises:
        RecordError: If there is no such file, or it is not a record.
    """
    if not path.is_file():
        raise RecordError(f"there is no record {path}: a farm makes it with Farm(record=...)")
    uri = path.absolute().as_uri() + "?mode=ro"
    try:
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=LOCK_TIMEOUT,
            isolation_level=None,
            check_same_thread=not any_thread,
        )
        [found] = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.Error as exc:
        raise RecordError(f"{path} is not a record of a farm: {exc}") from exc
    if found != _APPLICATION:
        connection.close()
        raise RecordError(f"{path} is a database, but not the record of a farm")
    return connection


def _make_private(path: Path) -> None:
    """Make the file if it is not there: results in it are pickles, for nobody else to change."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        return
    except OSError as exc:
        raise RecordError(
            f"the record {path} cannot be made: {exc.strerror}; name a file in a folder that "
            "exists and can be written"
        ) from exc


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Readers do not wait for the writer, nor it for them, and a killed writer leaves nothing
    # to repair. Where the file system has no shared memory (NFS) SQLite answers with what
    # it uses instead, which is as safe and slower.
    _wait_for_wal(connection)
    # A commit is safe from a killed process at once, from a power cut after a checkpoint.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and tables:
        raise RecordError(f"{path} is a database of something else; give record= another file")
    if version > VERSION:
        raise RecordError(f"the record {path} is of a later afarm; give record= another file")
    for statement in TABLES.split(";"):
        connection.execute(statement)
    _add_columns(connection)
    for name, query in VIEWS.items():
        connection.execute(f"DROP VIEW IF EXISTS {name}")
        connection.execute(f"CREATE VIEW {name} AS {query}")
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _wait_for_wal(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log. For that alone SQLite does not wait while another one writes."""
    until = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            busy = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _add_columns(connection: sqlite3.Connection) -> None:
    """Add what is kept now and was not when the record was made."""
    added = {"stated": "TEXT", "sized_by": "TEXT", "sized_from": "REAL"}
    for table, columns in (("attempt", _ATTEMPT_TYPES), ("invocation", added)):
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for name, kind in columns.items():
            if name not in known:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def insert(table: str, columns: Sequence[str], rows: int = 1) -> str:
    """Return the statement that inserts so many rows, or replaces what has their keys."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
