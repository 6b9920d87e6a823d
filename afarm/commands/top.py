"""``afarm top``: how a farm stands, seen from outside through its record."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import RecordError
from ..record import connect_to_read
from ..report.collect import read_run
from ..report.rows import RunFacts
from ..resources import format_bytes
from ..words import duration

# The record says once a second how things stand.
_INTERVAL = 1.0

# A farm that has not written for so long is not open any more, or its loop stands still.
_SILENT = 10.0

_BAR = 20

# Cursor to the upper left corner; clear what is to the right of a line, and below the last.
_HOME, _LINE_END, _REST = "\x1b[H", "\x1b[K\n", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@dataclass(frozen=True, slots=True)
class NodeNow:
    """A node as the record has it."""

    name: str
    state: str
    running: int
    cores: float
    cores_in_use: float
    memory: int
    memory_in_use: int
    available: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunningNow:
    """An attempt that is on a node."""

    number: int
    category: str
    node: str
    memory: int | None
    since: float


@dataclass(frozen=True, slots=True)
class WaitingNow:
    """An invocation that has waited long, and why."""

    number: int
    category: str
    since: float
    why: str


@dataclass(frozen=True, slots=True)
class Now:
    """All that is shown."""

    run: RunFacts
    nodes: Sequence[NodeNow]
    running: Sequence[RunningNow]
    waiting: Sequence[WaitingNow]


def read_now(path: Path) -> Now:
    """Return how the last run of a record stands.

    Raises:
        RecordError: If it is no record, or empty.
    """
    connection = connect_to_read(path)
    try:
        connection.execute("BEGIN")
        run = read_run(connection, path, None)
        nodes = connection.execute(
            "SELECT name, coalesce(state, ''), coalesce(running, 0), coalesce(cores, 0),"
            " coalesce(cores_in_use, 0), coalesce(memory, 0), coalesce(memory_in_use, 0),"
            " available, coalesce(reason, '') FROM node WHERE run = ? ORDER BY name",
            (run.run,),
        )
        running = connection.execute(
            "SELECT number, category, node, memory, since FROM running WHERE run = ?"
            " ORDER BY since, number",
            (run.run,),
        )
        waiting = connection.execute(
            "SELECT number, category, since, why FROM waiting WHERE run = ? ORDER BY since, number",
            (run.run,),
        )
        return Now(
            run,
            [NodeNow(*row) for row in nodes],
            [RunningNow(*row) for row in running],
            [WaitingNow(*row) for row in waiting],
        )
    except sqlite3.Error as exc:
        raise RecordError(f"the record {path} cannot be read: {exc}") from exc
    finally:
        connection.close()


def describe(now: Now, at: float, *, lines: int, columns: int) -> list[str]:
    """Return the screen.

    Args:
        now: What is so.
        at: The time, in seconds since the epoch.
        lines: How many there is room for.
        columns: How long each may be.
    """
    run = now.run
    done = run.returned + run.recalled
    silent = at - run.ended
    state = "closed" if run.closed else "running"
    if not run.closed and silent > _SILENT:
        state = f"no sign of life for {duration(silent)}"
    screen = [
        f"run {run.run} on {run.host}: {run.program}",
        f"{state}, {duration(run.seconds)}; {done:,} done ({run.recalled:,} from the record),"
        f" {run.failed:,} failed, {run.running:,} running, {run.waiting:,} waiting",
        "",
    ]
    width = max((len(node.name) for node in now.nodes), default=0)
    shown = now.nodes[: max(1, lines // 2)]
    screen += [_node_line(node, width) for node in shown]
    if len(shown) < len(now.nodes):
        screen.append(f"... and {len(now.nodes) - len(shown)} more nodes")
    screen.append("")
    if now.waiting:
        screen.append("waiting:")
        screen += [_waiting_line(one, at) for one in now.waiting[: max(1, lines // 5)]]
        screen.append("")
    room = max(0, lines - len(screen) - 1)
    longest = now.running[:room]
    if longest:
        screen.append("longest running:")
        screen += [_running_line(one, at) for one in longest[: room - 1]]
    return [line[:columns] for line in screen[:lines]]


def _node_line(node: NodeNow, width: int) -> str:
    if not node.cores:
        return f"{node.name:<{width}}  {node.state}  {node.reason}"
    memory = f"{format_bytes(node.memory_in_use)} of {format_bytes(node.memory)}"
    free = "" if node.available is None else f", {format_bytes(node.available)} available"
    return (
        f"{node.name:<{width}}  {node.state:<10} cores {_bar(node.cores_in_use, node.cores)}"
        f" {node.cores_in_use:g}/{node.cores:g}"
        f"  memory {_bar(node.memory_in_use, node.memory)} {memory}{free}"
        f"  {node.running} running  {node.reason}"
    ).rstrip()


def _bar(part: float, whole: float) -> str:
    filled = round(_BAR * min(1.0, part / whole)) if whole else 0
    return f"[{'#' * filled}{'.' * (_BAR - filled)}]"


def _running_line(one: RunningNow, at: float) -> str:
    memory = "" if one.memory is None else f", {format_bytes(one.memory)} allocated"
    took = duration(max(0.0, at - one.since))
    return f"  {took:>12}  #{one.number} {one.category} on {one.node}{memory}"


def _waiting_line(one: WaitingNow, at: float) -> str:
    took = duration(max(0.0, at - one.since))
    return f"  {took:>12}  #{one.number} {one.category}: {one.why}"


def watch(path: Path, *, once: bool = False, stream: TextIO | None = None) -> None:
    """Show a farm until it is closed, or the reader has seen enough.

    Args:
        path: Its record.
        once: Show how it stands now, and end.
        stream: Where to; standard output by default. One that is no terminal gets one look.

    Raises:
        RecordError: If it is no record, or empty.
    """
    out = stream or sys.stdout
    if once or not out.isatty():
        out.write("\n".join(describe(read_now(path), time.time(), lines=200, columns=400)) + "\n")
        return
    out.write(_ENTER)
    try:
        while True:
            now = read_now(path)
            size = shutil.get_terminal_size()
            screen = describe(now, time.time(), lines=size.lines - 1, columns=size.columns)
            out.write(_HOME + "".join(line + _LINE_END for line in screen) + _REST)
            out.flush()
            if now.run.closed:
                break
            time.sleep(_INTERVAL)
    finally:
        out.write(_LEAVE)
        out.flush()
    out.write("\n".join(screen) + "\n")
