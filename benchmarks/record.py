"""What does a record cost: calls per second and p50 with and without, and bytes a call?

The shortest calls there are, so that everything the record does counts: about 8,000 rows of
invocations and as many of attempts in a second. For a call of 10 ms it is a hundredth of that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import calls
from .figures import Figure
from .peers.base import WORKERS
from .question import aim, median_of

WITHOUT = "afarm reuse"
WITH = "afarm reuse, with a record"
WRITER = "the writer alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how many calls are made."""
    parser.add_argument("--calls", type=int, default=20_000, help="for each rate")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return a farm without a record, one with, and what writing costs by itself."""
    return [WITHOUT, WITH, WRITER]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Measure one of them once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "farm.db"
        if subject == WRITER:
            return _writer_alone(path, options.calls)
        return _farm(subject, path if subject == WITH else None, options.calls)


def _farm(subject: str, path: Path | None, number: int) -> list[Figure]:
    from .peers.farm import AfarmPeer

    peer = AfarmPeer("reuse", record=path)
    peer.open()
    try:
        peer.call_all(calls.echo, range(3_000))
        cpu, began = time.process_time(), time.perf_counter()
        peer.call_all(calls.echo, range(number))
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        trips = peer.round_trips(calls.nothing, 2_000)
    finally:
        peer.close()
    made = 3_000 + number + 2_000
    figures = [
        Figure(subject, "calls/s", "/s", (number / took,)),
        Figure(subject, "CPU per call", "s", (cpu / number,)),
        Figure(subject, "p50", "s", (statistics.median(trips),)),
        Figure(subject, "p99", "s", (statistics.quantiles(trips, n=100)[98],)),
    ]
    if path is not None:
        figures.append(Figure(subject, "file", "B", (os.path.getsize(path) / made,)))
        figures.append(Figure(subject, "not recorded", "", (float(made + WORKERS - _count(path)),)))
    return figures


def _count(path: Path) -> int:
    from afarm.record import connect_to_read

    connection = connect_to_read(path)
    try:
        return int(connection.execute("SELECT count(*) FROM invocation").fetchone()[0])
    finally:
        connection.close()


def _writer_alone(path: Path, number: int) -> list[Figure]:
    """Return what a call costs on the farm's loop, and in all."""
    from afarm.record import CallEntry, RunEntry, Writer
    from afarm.resources import Resources, Usage

    writer = Writer(path, RunEntry(time.time(), "here", 1, "", "", "", "AutoSizer"))
    writer.open()
    cpu, began = time.process_time(), time.perf_counter()
    for one in range(number):
        usage = Usage(wall_time=0.001, cpu_user=0.001, memory=1 << 20, start=began)
        attempts = [(1, "local", Resources(cores=1, memory=1 << 28), usage, "returned")]
        writer.call(CallEntry(one, "category", "code", began, began, "returned", None, attempts))
    told = time.perf_counter() - began
    writer.close()
    took = time.process_time() - cpu
    return [
        Figure(WRITER, "CPU per call", "s", (took / number,)),
        Figure(WRITER, "on the loop", "s", (told / number,)),
    ]


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare a farm that keeps a record with one that does not."""
    lines = []
    without, kept = (median_of(figures, name, "CPU per call") for name in (WITHOUT, WITH))
    if without is not None and kept is not None:
        more = (kept - without) * 1e6
        lines.append(aim("CPU that a record costs a call", more, 20, at_most=True, unit=" µs"))
    without, kept = (median_of(figures, name, "calls/s") for name in (WITHOUT, WITH))
    if without is not None and kept is not None:
        lines.append(aim("calls/s with a record, of those without", kept / without, 0.8))
    without, kept = (median_of(figures, name, "p50") for name in (WITHOUT, WITH))
    if without is not None and kept is not None:
        lines.append(aim("p50 with a record, of that without", kept / without, 1.1, at_most=True))
    missing = median_of(figures, WITH, "not recorded")
    if missing is not None:
        lines.append(aim("calls that the writer could not follow", missing, 0, at_most=True))
    return lines
