"""What a report says of a run: read from its record and summed up, so that its size is bounded."""

from __future__ import annotations

import math
import sqlite3
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from ..errors import RecordError
from ..record import connect_to_read
from .rows import CategoryRow, FailureRow, FeatureRow, LossRow, NodeLine, ReportData, RunFacts
from .timeline import Timeline

# Points of a timeline: more than a screen shows apart.
POINTS = 240

# Rows of each table; what is left is summed up in one more.
MOST_CATEGORIES = 40
MOST_NODES = 24
MOST_FAILURES = 40

_BARS = 24


@dataclass(slots=True)
class _Gathered:
    """The attempts of one category while they are read."""

    wall: array[float] = field(default_factory=lambda: array("d"))
    memory: array[float] = field(default_factory=lambda: array("d"))
    allocated: array[float] = field(default_factory=lambda: array("d"))
    cpu: float = 0.0
    used_area: float = 0.0
    allocated_area: float = 0.0
    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost_time: float = 0.0
    sized_by: FeatureRow | None = None

    def merge(self, other: _Gathered) -> None:
        """Add another category's."""
        self.wall.extend(other.wall)
        self.memory.extend(other.memory)
        self.allocated.extend(other.allocated)
        self.cpu += other.cpu
        self.used_area += other.used_area
        self.allocated_area += other.allocated_area
        self.attempts += other.attempts
        self.outcomes += other.outcomes
        self.lost_time += other.lost_time


def collect(path: Path, run: int | None = None) -> ReportData:
    """Return what is to be told of a run, by default the last; blocks.

    Raises:
        RecordError: If the file is no record, or has no such run.
    """
    connection = connect_to_read(path)
    try:
        connection.execute("BEGIN")  # one state of it, whoever writes meanwhile
        return _collect(connection, path, run)
    except sqlite3.Error as exc:
        raise RecordError(f"the record {path} cannot be read: {exc}") from exc
    finally:
        connection.close()


def read_run(connection: sqlite3.Connection, path: Path, run: int | None) -> RunFacts:
    """Return a run, by default the last.

    Raises:
        RecordError: If there is none.
    """
    row = connection.execute(
        "SELECT id, began, coalesce(ended, seen), ended IS NOT NULL, host, program, afarm, python,"
        " sizer, waiting, running, returned, failed, cancelled, recalled, evictions, unrecorded"
        " FROM run WHERE ? IS NULL OR id = ? ORDER BY id DESC LIMIT 1",
        (run, run),
    ).fetchone()
    if row is None:
        which = "no run" if run is None else f"no run {run}"
        raise RecordError(f"the record {path} holds {which}; see its view 'runs'")
    began, ended, closed = row[1:4]
    return RunFacts(row[0], began, ended, bool(closed), *row[4:])


def _collect(connection: sqlite3.Connection, path: Path, run: int | None) -> ReportData:
    facts = read_run(connection, path, run)
    nodes = {
        name: (kind or "", cores or 0.0, memory or 0, clock or 0.0)
        for name, kind, cores, memory, clock in connection.execute(
            "SELECT name, kind, cores, memory, clock FROM node WHERE run = ?", (facts.run,)
        )
    }
    lines = {name: _Lines(facts) for name in nodes}
    gathered: dict[str, _Gathered] = defaultdict(_Gathered)
    losses: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    rows = connection.execute(
        "SELECT c.name, a.node, a.outcome, a.used_start, a.used_wall_time,"
        " a.used_cpu_user + a.used_cpu_system, a.used_memory, a.allocated_cores,"
        " a.allocated_memory FROM attempt a JOIN invocation i USING (run, number)"
        " JOIN category c ON c.id = i.category WHERE a.run = ?",
        (facts.run,),
    )
    for name, node, outcome, start, wall, cpu, memory, cores, allocated in rows:
        if outcome != "returned":
            loss = losses[outcome, node]
            loss[0] += 1
            loss[1] += wall or 0.0
        if wall is None:
            continue
        _gather(gathered[name], outcome, wall, cpu, memory, allocated)
        if node in lines:
            begin = start + nodes[node][3]
            lines[node].add(begin, begin + wall, wall, cores, cpu, allocated, memory)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome, count in connection.execute(
        "SELECT c.name, i.outcome, count(*) FROM invocation i JOIN category c ON c.id = i.category"
        " WHERE i.run = ? GROUP BY c.name, i.outcome",
        (facts.run,),
    ):
        outcomes[name][outcome] += count
    for name, counted in outcomes.items():
        gathered[name].outcomes = counted
    for name, told in _features(connection, facts.run).items():
        gathered[name].sized_by = told
    facts = _up_to_date(facts, sum(outcomes.values(), Counter()))
    whole = _Gathered()
    for each in gathered.values():
        whole.merge(each)
    [runs] = connection.execute("SELECT count(*) FROM run").fetchone()
    return ReportData(
        run=facts,
        runs=runs,
        nodes=_node_lines(nodes, lines),
        categories=_category_rows(gathered),
        failures=_failures(connection, facts.run),
        losses=[
            LossRow(outcome, node, int(count), seconds)
            for (outcome, node), (count, seconds) in sorted(
                losses.items(), key=lambda item: -item[1][1]
            )
        ][:MOST_FAILURES],
        cpu=whole.cpu,
        lost_time=whole.lost_time,
        efficiency=whole.used_area / whole.allocated_area if whole.allocated_area else None,
        attempts=whole.attempts,
    )


def _up_to_date(facts: RunFacts, outcomes: Counter[str]) -> RunFacts:
    """Return the facts with the calls counted that ended since the run last told its counts."""
    counts = {
        name: max(getattr(facts, name), outcomes[name])
        for name in ("returned", "failed", "cancelled", "recalled")
    }
    more = sum(counts.values()) - sum(getattr(facts, name) for name in counts)
    running = max(0, facts.running - more)
    waiting = max(0, facts.waiting - max(0, more - facts.running))
    return replace(facts, **counts, running=running, waiting=waiting)


def _gather(
    into: _Gathered, outcome: str, wall: float, cpu: float, memory: int, allocated: int | None
) -> None:
    into.attempts += 1
    into.wall.append(wall)
    into.memory.append(memory)
    into.cpu += cpu
    if outcome != "returned":
        into.lost_time += wall
    if allocated:
        into.allocated.append(allocated)
        into.used_area += min(memory, allocated) * wall
        into.allocated_area += allocated * wall


class _Lines:
    """The timelines of one node."""

    def __init__(self, facts: RunFacts) -> None:
        self.attempts = 0
        self.cores, self.busy, self.allocated, self.memory = (
            Timeline(facts.began, facts.ended, POINTS) for _ in range(4)
        )

    def add(
        self,
        begin: float,
        end: float,
        wall: float,
        cores: float | None,
        cpu: float,
        allocated: int | None,
        memory: int,
    ) -> None:
        self.attempts += 1
        self.cores.add(begin, end, cores or 0.0)
        self.busy.add(begin, end, cpu / wall if wall else 0.0)
        self.allocated.add(begin, end, allocated or 0)
        self.memory.add(begin, end, memory)


def _node_lines(
    nodes: dict[str, tuple[str, float, int, float]], lines: dict[str, _Lines]
) -> list[NodeLine]:
    found = [
        NodeLine(
            name,
            kind,
            cores,
            memory,
            lines[name].attempts,
            lines[name].cores.shares(cores),
            lines[name].busy.shares(cores),
            lines[name].allocated.shares(memory),
            lines[name].memory.shares(memory),
        )
        for name, (kind, cores, memory, _) in nodes.items()
    ]
    busiest = sorted(found, key=lambda line: -line.attempts)[:MOST_NODES]
    return sorted(busiest, key=lambda line: line.name)


def _category_rows(gathered: dict[str, _Gathered]) -> list[CategoryRow]:
    by_time = sorted(gathered.items(), key=lambda item: -sum(item[1].wall))
    shown = by_time[:MOST_CATEGORIES]
    left = by_time[MOST_CATEGORIES:]
    if left:
        rest = _Gathered()
        for _, each in left:
            rest.merge(each)
        shown.append((f"{len(left)} more", rest))
    return [_category_row(name, each) for name, each in shown]


def _category_row(name: str, each: _Gathered) -> CategoryRow:
    largest = max(each.memory, default=0.0)
    allocated = median(each.allocated) if each.allocated else None
    scale = max(largest, allocated or 0.0)
    histogram = [0] * _BARS
    for memory in each.memory:
        histogram[min(_BARS - 1, math.floor(memory / scale * _BARS)) if scale else 0] += 1
    return CategoryRow(
        name=name,
        outcomes=each.outcomes,
        attempts=each.attempts,
        wall_total=sum(each.wall),
        wall_median=median(each.wall) if each.wall else 0.0,
        wall_max=max(each.wall, default=0.0),
        cpu=each.cpu,
        memory_median=median(each.memory) if each.memory else 0.0,
        memory_max=largest,
        allocated_median=allocated,
        efficiency=each.used_area / each.allocated_area if each.allocated_area else None,
        histogram=histogram,
        scale=scale,
        sized_by=each.sized_by,
    )


def _features(connection: sqlite3.Connection, run: int) -> dict[str, FeatureRow]:
    """Return the feature by which most calls of a category were sized, by category."""
    [known] = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = 'features'"
    ).fetchone()
    if not known:  # written by an earlier version, and by none since
        return {}
    rows = connection.execute(
        "SELECT category, feature, calls, least, most FROM features WHERE run = ? ORDER BY calls",
        (run,),
    )
    return {category: FeatureRow(*told) for category, *told in rows}


def _failures(connection: sqlite3.Connection, run: int) -> list[FailureRow]:
    rows = connection.execute(
        "SELECT category, error, calls, first FROM failures WHERE run = ?"
        " ORDER BY calls DESC, first LIMIT ?",
        (run, MOST_FAILURES),
    )
    return [FailureRow(name, error or "", calls, first) for name, error, calls, first in rows]
