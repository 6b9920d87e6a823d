"""The page of a record: what it says, that it is bounded, and that it needs nothing else."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from afarm import report
from afarm.commands import top
from afarm.errors import RecordError
from afarm.record import (
    CallEntry,
    NodeEntry,
    RunEntry,
    RunningEntry,
    Snapshot,
    WaitingEntry,
    Writer,
)
from afarm.resources import Resources, Usage
from afarm.words import duration

MIB = 1 << 20
VOID = {"meta", "rect", "path", "line", "br"}


def call(
    number: int,
    category: str = "work",
    *,
    begin: float = 1010.0,
    wall: float = 10.0,
    error: BaseException | None = None,
    node: str = "lab1",
) -> CallEntry:
    usage = Usage(wall_time=wall, cpu_user=wall / 2, memory=100 * MIB, start=begin)
    outcome = "returned" if error is None else "raised"
    attempt = (1, node, Resources(cores=1, memory=200 * MIB), usage, outcome)
    done = "returned" if error is None else "failed"
    return CallEntry(number, category, "code", begin, begin + wall, done, error, [attempt])


def node(name: str = "lab1") -> NodeEntry:
    capacity = Resources(cores=2, memory=400 * MIB)
    return NodeEntry(name, "ssh", "up", "", capacity, 1, 1.0, 200 * MIB, 0.5, 150 * MIB)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.db"


def write(path: Path, *calls: CallEntry, nodes: int = 1, closed: bool = True) -> Writer:
    writer = Writer(path, RunEntry(1000.0, "here", 7, "<program>", "1.0", "3.11", "AutoSizer"))
    writer.open()
    for each in calls:
        writer.call(each)
    writer.wait_written()
    running = [RunningEntry(99, "slow", 1, "lab1", 1.0, 200 * MIB, 1020.0)]
    counts = {"waiting": 3, "running": 1, "returned": len(calls)}
    named = [node(f"lab{number + 1}") for number in range(nodes)]
    waiting = [WaitingEntry(100, "later", 1030.0, "no node has room for it now; lab1: full")]
    writer.put(Snapshot(1040.0, counts, named, running, keep=True, waiting=waiting))
    if closed:
        writer.close()
    else:
        writer.wait_written()
    return writer


class Checker(HTMLParser):
    """Fails on elements that are not closed, or in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(path: Path) -> str:
    page = report.render(report.collect(path))
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    # Nothing is fetched from anywhere.
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    return page


def test_a_report_tells_what_ran_where_and_what_failed(path: Path) -> None:
    write(path, call(1), call(2, "other", error=ValueError("<no> input\nin line 3")))
    page = page_of(path)
    assert "lab1" in page
    assert "2 cores, 400.0 MiB" in page
    assert "ValueError: &lt;no&gt; input" in page
    assert "in line 3" in page
    assert "&lt;program&gt;" in page
    assert "100.0 MiB" in page
    assert "<program>" not in page


def test_how_full_a_node_was_is_an_average_over_time(path: Path) -> None:
    write(path, call(1, begin=1010.0), call(2, begin=1010.0), closed=False)
    [line] = report.collect(path).nodes  # from 1000 to 1040
    quarter = len(line.cores_allocated) // 4
    assert line.cores_allocated[: quarter - 1] == pytest.approx([0.0] * (quarter - 1))
    inside = slice(quarter + 1, 2 * quarter - 1)
    assert set(line.cores_allocated[inside]) == {1.0}
    assert line.cores_used[quarter + 1] == pytest.approx(0.5)
    assert line.memory_allocated[quarter + 1] == pytest.approx(1.0)
    assert line.memory_used[quarter + 1] == pytest.approx(0.5)


def test_it_is_told_what_of_the_arguments_sizes_were_predicted_from(path: Path) -> None:
    sized = [replace(call(n), sized_by=("size(<t>)", n * 1024.0 * MIB)) for n in (1, 2, 3)]
    other = replace(call(4), sized_by=("rows", 7.0))
    lengthy = replace(call(5, "long"), sized_by=("n" * 500, 20.0))
    write(path, *sized, other, lengthy, call(6, "nothing known"))
    page = page_of(path)
    assert "size(&lt;t&gt;)<br><small>1.0 GiB to 3.0 GiB, 3 calls" in page
    assert f"{'n' * 59}…<br><small>20, 1 call<" in page
    told = {row.name: row.sized_by for row in report.collect(path).categories}
    assert told["nothing known"] is None


def test_a_record_of_a_version_that_kept_no_features_is_read(path: Path) -> None:
    write(path, call(1))
    with sqlite3.connect(path) as other:
        for view in ("features", "invocations"):
            other.execute(f"DROP VIEW {view}")
        for column in ("sized_by", "sized_from"):
            other.execute(f"ALTER TABLE invocation DROP COLUMN {column}")
    other.close()
    assert "work" in page_of(path)


def test_a_report_is_bounded_whatever_ran(path: Path) -> None:
    calls = [
        call(n, f"category {n}", error=ValueError(f"error {n}"), node=f"lab{n % 90}")
        for n in range(1, 2001)
    ]
    write(path, *calls, nodes=90)
    page = page_of(path)
    assert len(page) < 300_000
    assert "1960 more" in page
    data = report.collect(path)
    assert sum(row.calls for row in data.categories) == 2000


def test_numbers_of_a_category_are_those_of_its_attempts(path: Path) -> None:
    write(path, *(call(n, wall=float(n)) for n in range(1, 6)))
    [row] = report.collect(path).categories
    assert (row.calls, row.attempts) == (5, 5)
    assert (row.wall_total, row.wall_median, row.wall_max) == (15.0, 3.0, 5.0)
    assert (row.memory_median, row.memory_max) == (100 * MIB, 100 * MIB)
    assert row.efficiency == pytest.approx(0.5)
    assert sum(row.histogram) == 5


def test_an_empty_run_has_a_report(path: Path) -> None:
    writer = Writer(path, RunEntry(1000.0, "here", 7, "", "1.0", "3.11", "AutoSizer"))
    writer.open()
    assert "No call has ended" in page_of(path)
    writer.close()


def test_a_run_is_chosen_by_its_number(path: Path) -> None:
    write(path, call(1, "first"))
    write(path, call(1, "second"))
    assert report.collect(path).categories[0].name == "second"
    assert report.collect(path, 1).categories[0].name == "first"
    with pytest.raises(RecordError, match="no run 7"):
        report.collect(path, 7)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (2e-5, "20 µs"),
        (0.0123, "12.3 ms"),
        (3.21, "3.2 s"),
        (100, "100 s"),
        (321, "5 min 21 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


# --- top


def test_top_shows_nodes_and_what_runs(path: Path) -> None:
    writer = write(path, call(1), closed=False)
    now = top.read_now(path)
    screen = top.describe(now, 1041.0, lines=24, columns=120)
    text = "\n".join(screen)
    assert "1 done" in text
    assert "3 waiting" in text
    assert "[##########..........] 1/2" in text
    assert "#99 slow on lab1" in text
    assert "11.0 s  #100 later: no node has room for it now; lab1: full" in text
    assert all(len(line) <= 120 for line in screen)
    assert "no sign of life for 60.0 s" in "\n".join(
        top.describe(now, 1100.0, lines=24, columns=120)
    )
    writer.close()


@pytest.mark.parametrize("lines", [1, 5, 24])
def test_top_fits_the_screen(path: Path, lines: int) -> None:
    writer = write(path, call(1), nodes=50, closed=False)
    screen = top.describe(top.read_now(path), 1041.0, lines=lines, columns=40)
    assert len(screen) <= lines
    assert all(len(line) <= 40 for line in screen)
    writer.close()
