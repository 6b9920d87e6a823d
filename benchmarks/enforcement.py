"""How far over its memory limit does a call get, and how soon after is it gone?

The program notes when it had how much (`growing`), so that both are known without believing
the monitor: overshoot is the most it noted, over the limit; the delay runs from the note that
is over the limit to the end of the process that grew. By default every core is kept busy by
somebody else.

The kernel's part, a control group behind the watch, is there in the first three where this
machine lets the agent make groups, and switched off in the next three (`AFARM_GROUPS=0`).

Beside afarm: the reference, `resource_monitor` (Debian: coop-computing-tools), with its
defaults, and with the shortest interval that it takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import afarm
from afarm.executor import CallFuture
from afarm.resources import Source

from . import growing
from .figures import Figure
from .question import CannotMeasure, aim, median_of

MIB = 1 << 20
LIMITS = {"100 MiB": 100 * MIB, "1 GiB": 1 << 30}
# Bytes per second; 0: one allocation, touched as fast as the machine can.
RATES = {"0.1 GB/s": 1e8, "1 GB/s": 1e9, "2 GB/s": 2e9, "at once": 0.0}
FLOOR = "floor: killed at once"
OURS = ("afarm fork", "afarm reuse", "afarm, a subprocess")
WITHOUT = ", no cgroup"
SYSTEMS = (*OURS, *(name + WITHOUT for name in OURS), "resource_monitor", FLOOR)

# Who is not stopped by then is not going to be; the growing program stops at so much more
# than its limit, or at a third of what the machine has free.
MOST_OVER = 4 << 30

CALLS = 5

# Over a limit of 1 GiB or more, what grows in so long (s) is allowed with all cores busy.
ALLOWED = 0.010
# And in so long (s) more than the floor needs the tree is to be gone.
GONE = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    system: str
    limit: str
    rate: str

    def __str__(self) -> str:
        return f"{self.system}, {self.limit}, {self.rate}"


CASES = {
    str(case): case
    for limit in LIMITS
    for rate in RATES
    for case in (Case(system, limit, rate) for system in SYSTEMS)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how often, and beside what."""
    parser.add_argument("--calls", type=int, default=CALLS, help="of each kind in a round")
    parser.add_argument(
        "--burners", type=int, default=os.cpu_count() or 1, help="busy processes beside it"
    )


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return every system with every limit and rate."""
    return list(CASES)


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Let a few calls exceed their limit, one after the other."""
    case = CASES[subject]
    limit = LIMITS[case.limit]
    room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    if room < limit + 256 * MIB:
        raise CannotMeasure(f"{room >> 20} MiB may be used here")
    most = min(limit + MOST_OVER, room)
    overs: list[float] = []
    delays: list[float] = []
    with _program(case, limit, most) as run, _burning(options.burners):
        for _ in range(options.calls):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "notes")
                growing.make_notes(path)
                watcher = _Watcher(path)
                run(path)
                watcher.join()
                notes = list(growing.read_notes(path))
            over = [note for note in notes if note.size > limit]
            if not over:
                # Ended before it could note that it was over.
                overs.append(0.0)
                continue
            overs.append(float(notes[-1].size - limit))
            if watcher.gone_at is not None:
                delays.append((watcher.gone_at - over[0].time) * 1e-9)
    figures = [
        Figure(subject, "overshoot, median", "B", (statistics.median(overs),)),
        Figure(subject, "most", "B", (max(overs),)),
    ]
    if delays:
        figures += [
            Figure(subject, "gone after, median", "s", (statistics.median(delays),)),
            Figure(subject, "at most", "s", (max(delays),)),
        ]
    return figures


class _Watcher(threading.Thread):
    """Notes when the process that grows is gone.

    Attributes:
        gone_at: Nanoseconds of the monotonic clock.
    """

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.gone_at: int | None = None
        self.start()

    def run(self) -> None:
        give_up = time.monotonic() + growing.PATIENCE
        while time.monotonic() < give_up:
            note = next(growing.read_notes(self._path), None)
            if note is None:
                time.sleep(0.001)
                continue
            try:
                descriptor = os.pidfd_open(note.pid)
            except ProcessLookupError:  # between two looks: it lived for a millisecond
                self.gone_at = time.monotonic_ns()
                return
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if poll.poll(2 * growing.PATIENCE * 1000):
                self.gone_at = time.monotonic_ns()
            os.close(descriptor)
            return


@contextlib.contextmanager
def _program(case: Case, limit: int, most: int) -> Iterator[Callable[[str], None]]:
    """Yield what lets the program grow once, and waits for its end."""
    rate = RATES[case.rate]
    if case.system == FLOOR:

        def floor(path: str) -> None:
            with subprocess.Popen(growing.command(path, limit, rate, most)) as process:
                while growing.last_size(path) <= limit:
                    time.sleep(0.0005)
                process.kill()

        yield floor
        return
    if case.system == "resource_monitor":
        monitor = shutil.which("resource_monitor")
        if monitor is None:
            raise CannotMeasure("resource_monitor is not installed (coop-computing-tools)")

        def reference(path: str) -> None:
            argv = [monitor, "-L", f"memory: {limit // MIB}", "-O", path + ".summary", "-i", "1"]
            argv += ["--without-disk-footprint", "--"]
            subprocess.run(
                argv + growing.command(path, limit, rate, most),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
                cwd=Path(path).parent,
            )  # fmt: skip

        yield reference
        return
    os.environ["AFARM_GROUPS"] = "0" if WITHOUT in case.system else "1"
    isolation = "reuse" if "reuse" in case.system else "fork"
    function = growing.grow_in_subprocess if "subprocess" in case.system else growing.grow
    with afarm.Executor(
        [afarm.LocalNode(cores=1)], isolation=isolation, retries=0, progress=False
    ) as executor:
        limited = executor.options(cores=1, memory=limit)
        # Of an isolated call the supervisor says what stood behind its limits.
        first = executor.options(cores=1, isolation="fork").submit(len, "")
        first.result()
        limited.submit(len, "").result()
        usage = first.usage if isinstance(first, CallFuture) else None
        grouped = usage is not None and usage.sources & Source.GROUP
        if not grouped and WITHOUT not in case.system:
            raise CannotMeasure("no control groups can be made here: see the same without")

        def ours(path: str) -> None:
            try:
                limited.submit(function, path, limit, rate, most).result()
            except afarm.ResourceExhausted:
                return
            raise CannotMeasure("a call went over its limit and was not stopped")

        yield ours


@contextlib.contextmanager
def _burning(number: int) -> Iterator[None]:
    """Keep so many processors busy meanwhile."""
    children = []
    try:
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                while True:
                    pass
            children.append(pid)
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for name, case in CASES.items():
        if not case.system.startswith("afarm"):
            continue
        most, gone = median_of(figures, name, "most"), median_of(figures, name, "at most")
        rate = RATES[case.rate]
        if most is not None and rate and LIMITS[case.limit] >= 1 << 30:
            allowed = rate * ALLOWED / 1e6
            lines.append(aim(f"{name}, over", most / 1e6, allowed, at_most=True, unit=" MB"))
        floor = median_of(figures, str(Case(FLOOR, case.limit, case.rate)), "gone after, median")
        if gone is not None and floor is not None:
            late = (gone - floor) * 1e3
            lines.append(
                aim(f"{name}, gone after the floor", late, GONE * 1e3, at_most=True, unit=" ms")
            )
    return lines
