"""The record as it is written: whole, bounded, and by several farms at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from afarm.errors import RecordError
from afarm.record import (
    CallEntry,
    LearnedSizes,
    NodeEntry,
    ResultEntry,
    RunEntry,
    RunningEntry,
    SizeEntry,
    Snapshot,
    Writer,
    connect_to_read,
    schema,
    tables,
    writer,
)
from afarm.record.schema import VIEWS
from afarm.resources import Resources, Usage

MIB = 1 << 20
RUN = RunEntry(1000.0, "here", 7, "program.py", "1.0", "3.11", "AutoSizer")


def entry(number: int, *, error: BaseException | None = None, tries: int = 1) -> CallEntry:
    usage = Usage(wall_time=2.0, cpu_user=1.5, cpu_system=0.25, memory=300 * MIB, start=1500.0)
    attempts = [
        (n, "lab1", Resources(cores=1, memory=400 * MIB), usage, "returned")
        for n in range(1, tries + 1)
    ]
    outcome = "returned" if error is None else "failed"
    return CallEntry(number, "work", "abc", 1490.0, 1502.5, outcome, error, attempts)


def node(name: str = "lab1") -> NodeEntry:
    return NodeEntry(name, "ssh", "up", "", Resources(cores=4), 2, 2.0, 800 * MIB, 1.5, 10 * MIB)


def query(path: Path, statement: str, *values: object) -> list[dict[str, Any]]:
    connection = connect_to_read(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(statement, values)]
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.db"


@pytest.fixture
def opened(path: Path) -> Writer:
    made = Writer(path, RUN)
    made.open()
    return made


def test_a_call_is_kept_with_its_attempts(path: Path, opened: Writer) -> None:
    opened.call(entry(1))
    opened.call(entry(2, error=ValueError("no"), tries=3))
    opened.close()
    first, second = query(path, "SELECT * FROM invocations ORDER BY number")
    assert (first["category"], first["outcome"], first["error"]) == ("work", "returned", None)
    assert (first["seconds"], first["wall_time"], first["memory_mib"]) == (12.5, 2.0, 300.0)
    assert (second["outcome"], second["error"], second["attempts"]) == (
        "failed",
        "ValueError: no",
        3,
    )
    attempts = query(path, "SELECT * FROM attempts WHERE number = 2")
    assert [one["attempt"] for one in attempts] == [1, 2, 3]
    assert attempts[0]["cpu_time"] == 1.75
    assert attempts[0]["allocated_mib"] == 400.0
    assert attempts[0]["gpu_mib"] is None


@pytest.mark.parametrize("number", [1, 49, 50, 51, 250])
def test_batches_of_every_size_are_whole(path: Path, opened: Writer, number: int) -> None:
    for n in range(number):
        opened.call(entry(n + 1, tries=2))
    opened.close()
    assert query(path, "SELECT count(*) AS n FROM invocation") == [{"n": number}]
    assert query(path, "SELECT count(*) AS n FROM attempt") == [{"n": 2 * number}]


def test_every_usage_is_kept_as_it_is(path: Path, opened: Writer) -> None:
    names = [each for each in Usage.__dataclass_fields__ if each not in ("curve", "gpu_memory")]
    usage = Usage(**{name: n + 1 for n, name in enumerate(names)}, gpu_memory=(MIB, 3 * MIB, 7))
    call = entry(1)
    call.attempts = [(1, "lab1", Resources(memory=MIB), usage, "returned")]
    opened.call(call)
    opened.close()
    [row] = query(path, "SELECT * FROM attempt")
    for name in names:
        assert row[f"used_{name}"] == getattr(usage, name)
    assert row["used_gpu_memory"] == 3 * MIB
    assert row["allocated_memory"] == MIB
    assert row["allocated_cores"] is None


def test_what_sqlite_has_no_type_for_is_kept_as_text(
    path: Path, opened: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ODD_USAGE", (0, 12))
    opened.call(entry(1))
    opened.close()
    [row] = query(path, "SELECT typeof(used_memory) AS kind, used_exit FROM attempt")
    assert row == {"kind": "integer", "used_exit": None}


def test_every_view_can_be_read(path: Path, opened: Writer) -> None:
    opened.call(replace(entry(1, error=ValueError("no")), sized_by=("n", 5.0)))
    opened.put(Snapshot(1501.0, {"waiting": 3}, [node()], [], keep=True))
    opened.result(ResultEntry("key", "work", 1500.0, 3, [3], b"abc", None, "digest"))
    opened.close()
    for name in VIEWS:
        assert query(path, f"SELECT * FROM {name}"), name
    [category] = query(path, "SELECT * FROM categories")
    assert (category["calls"], category["failed"], category["memory_efficiency"]) == (1, 1, 0.75)


def test_what_is_so_now_replaces_what_was_so(path: Path, opened: Writer) -> None:
    running = RunningEntry(9, "work", 1, "lab1", 1.0, MIB, 1500.0)
    opened.put(Snapshot(1501.0, {"waiting": 3, "running": 1}, [node()], [running], keep=True))
    opened.put(Snapshot(1502.0, {"waiting": 2, "running": 1}, [node()], [running], keep=False))
    opened.wait_written()
    [run] = query(path, "SELECT * FROM run")
    assert (run["waiting"], run["seen"], run["ended"]) == (2, 1502.0, None)
    assert [row["number"] for row in query(path, "SELECT * FROM running")] == [9]
    assert [row["at"] for row in query(path, "SELECT * FROM reading")] == [1501.0]
    opened.close()
    [run] = query(path, "SELECT * FROM run")
    assert run["ended"] is not None
    assert query(path, "SELECT * FROM running") == []


def test_a_node_with_another_clock_is_put_right(path: Path, opened: Writer) -> None:
    # It ended at 1502.0 by its own clock, and at 1502.5 here.
    opened.call(entry(1))
    opened.wait_written()
    opened.put(Snapshot(1503.0, {}, [node()], [], keep=True))
    opened.close()
    assert [row["clock"] for row in query(path, "SELECT clock FROM node")] == [0.5]


def test_errors_that_cannot_be_told_are_kept_by_their_type(path: Path, opened: Writer) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    opened.call(entry(1, error=Mute()))
    opened.call(entry(2, error=ValueError("\udc80 odd")))
    opened.call(entry(3, error=ValueError("x" * 100_000)))
    opened.close()
    told = [row["error"] for row in query(path, "SELECT error FROM invocation ORDER BY number")]
    assert "Mute" in told[0]
    assert "odd" in told[1]
    assert len(told[2]) < 10_000


def test_what_sqlite_cannot_hold_costs_nothing_else(
    path: Path, opened: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    odd, huge = entry(2), entry(3)
    odd.category = "\udc80"
    huge.attempts = [(1, "lab1", Resources(memory=1 << 70), Usage(), "returned")]
    for call in (entry(1), odd, huge, entry(4)):
        opened.call(call)
    opened.put(Snapshot(1501.0, {"waiting": 3}, [node()], [], keep=True))
    opened.close()
    assert query(path, "SELECT number FROM invocation") == [{"number": 1}, {"number": 4}]
    assert query(path, "SELECT waiting, unrecorded FROM run") == [{"waiting": 3, "unrecorded": 2}]
    assert caplog.text.count("cannot hold something") == 2


def test_what_the_disk_cannot_follow_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 10)
    monkeypatch.setattr(writer, "INTERVAL", 60.0)
    made = Writer(path, RUN)
    made.open()
    for number in range(25):
        made.call(entry(number + 1))
    made.close()
    assert made.unrecorded == 15
    assert query(path, "SELECT count(*) AS n FROM invocation") == [{"n": 10}]
    assert query(path, "SELECT unrecorded FROM run") == [{"unrecorded": 15}]


def test_results_beyond_the_bound_are_refused(
    path: Path, opened: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_BYTES", 10)
    big = ResultEntry("a", "work", 1.0, 11, [11], b"x" * 11, None, "d")
    assert not opened.result(big)
    assert opened.result(ResultEntry("b", "work", 1.0, 9, [9], b"x" * 9, None, "d"))
    opened.wait_written()
    assert opened.result(ResultEntry("c", "work", 1.0, 9, [9], b"x" * 9, None, "d"))
    opened.close()
    assert [row["key"] for row in query(path, "SELECT key FROM result ORDER BY key")] == ["b", "c"]


def test_a_disk_that_fails_is_told_once_and_the_farm_goes_on(
    path: Path, opened: Writer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("DROP TABLE attempt")
    for number in (1, 2):
        opened.call(entry(number))
        opened.wait_written()
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    blocker.execute("CREATE TABLE attempt AS SELECT 1 AS run")
    blocker.close()
    opened.close()
    assert opened.unrecorded == 2


def test_two_farms_write_one_record(path: Path) -> None:
    writers = [Writer(path, RUN) for _ in range(4)]
    threads = [threading.Thread(target=_write_many, args=(each, 500)) for each in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.run for each in writers) == [1, 2, 3, 4]
    found = query(path, "SELECT run, count(*) AS n FROM invocation GROUP BY run")
    assert [row["n"] for row in found] == [500] * 4
    assert query(path, "SELECT count(*) AS n FROM category") == [{"n": 1}]


def test_a_record_that_another_farm_is_just_making_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def let_go(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.execute("COMMIT")

    monkeypatch.setattr(schema.time, "sleep", let_go)
    schema.connect(path).close()
    assert len(waits) == 3
    other.close()


def _write_many(each: Writer, number: int) -> None:
    each.open()
    for n in range(number):
        each.call(entry(n + 1))
        if n % 100 == 0:
            each.wait_written()
    each.close()


@pytest.mark.slow
def test_a_killed_writer_leaves_what_it_had_written(path: Path) -> None:
    program = """
        import sys, time
        from pathlib import Path
        from afarm.record import Writer
        from tests.record.test_writer import RUN, entry
        writer = Writer(Path(sys.argv[1]), RUN)
        writer.open()
        for number in range(1, 1001):
            writer.call(entry(number))
        writer.wait_written()
        print("written", flush=True)
        while True:
            number += 1
            writer.call(entry(number))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert query(path, "SELECT count(*) >= 1000 AS enough FROM invocation") == [{"enough": 1}]
    assert query(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    later = Writer(path, RUN)
    later.open()
    later.close()
    assert later.run == 2


# --- what cannot be a record


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.write_text("not a database, but long enough to be looked at " * 40)
    with pytest.raises(RecordError, match="another file"):
        Writer(path, RUN).open()
    with pytest.raises(RecordError, match="not a record"):
        connect_to_read(path)


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(RecordError, match="something else"):
        Writer(path, RUN).open()
    with pytest.raises(RecordError, match="not the record"):
        connect_to_read(path)


def test_a_record_of_a_later_version_is_refused(path: Path, opened: Writer) -> None:
    opened.close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 999")
    other.close()
    with pytest.raises(RecordError, match="later afarm"):
        Writer(path, RUN).open()


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(RecordError, match="in a folder that exists"):
        Writer(path.parent / "nowhere" / "farm.db", RUN).open()
    with pytest.raises(RecordError, match="there is no record"):
        connect_to_read(path)


def test_a_record_is_its_owners_alone(path: Path, opened: Writer) -> None:
    opened.close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_columns_that_are_new_are_added_to_an_old_record(path: Path, opened: Writer) -> None:
    opened.call(entry(1))
    opened.close()
    with sqlite3.connect(path) as other:
        other.execute("DROP VIEW attempts")
        other.execute("ALTER TABLE attempt DROP COLUMN used_threads")
        other.execute("DROP VIEW invocations")
        other.execute("DROP VIEW features")
        other.execute("ALTER TABLE invocation DROP COLUMN sized_from")
    other.close()
    later = Writer(path, RUN)
    later.open()
    later.call(entry(1))
    later.close()
    found = query(path, "SELECT used_threads AS threads FROM attempt ORDER BY run")
    assert [row["threads"] for row in found] == [None, 1]
    assert query(path, "SELECT sized_from FROM invocations WHERE sized_from IS NOT NULL") == []


def test_it_is_kept_what_of_its_arguments_a_call_was_sized_by(path: Path, opened: Writer) -> None:
    for number, size in enumerate((300.0, 100.0, 200.0), 1):
        opened.call(replace(entry(number), sized_by=("size(table)", size)))
    opened.call(replace(entry(4), sized_by=("n", 5.0)))
    opened.call(entry(5))
    opened.close()
    calls = query(path, "SELECT sized_by, sized_from FROM invocations ORDER BY number")
    assert calls[0] == {"sized_by": "size(table)", "sized_from": 300.0}
    assert calls[4] == {"sized_by": None, "sized_from": None}
    assert query(path, "SELECT * FROM features ORDER BY calls DESC") == [
        {"run": 1, "category": "work", "feature": "size(table)", "calls": 3,
         "least": 100.0, "most": 300.0},
        {"run": 1, "category": "work", "feature": "n", "calls": 1, "least": 5.0, "most": 5.0},
    ]  # fmt: skip


# --- what was learned


def test_sizes_are_found_by_code_and_trusted_less_without(path: Path, opened: Writer) -> None:
    opened.put(SizeEntry("AutoSizer", "work", "old", "[1, 2]"))
    opened.wait_written()
    opened.put(SizeEntry("AutoSizer", "work", "new", "[3, 4]"))
    opened.put(SizeEntry("Other", "work", "new", "[5]"))
    opened.close()
    learned = LearnedSizes.read(path, "AutoSizer")
    exact, changed = learned.of("work", "old"), learned.of("work", "newer")
    assert exact is not None
    assert changed is not None
    assert (exact.state, exact.trust) == ([1, 2], 1.0)
    assert changed.state == [3, 4]
    assert changed.trust < 1
    assert learned.of("unknown", "old") is None
