"""How far from the truth is what a monitor says that a call used?

Programs that know what they use (`benchmarks.truths`) run under this monitor, under psutil
polling the process tree every 10 ms, 100 ms and 1 s, under GNU time, and under the reference
implementation's ``resource_monitor`` where it is installed (Debian: coop-computing-tools). The
others measure a whole interpreter: what one that does nothing uses is subtracted for them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, cast

from afarm import Usage
from afarm.executor import CallFuture

from . import truths
from .figures import Figure
from .question import CannotMeasure, aim, median_of
from .truths import MIB, Truth

SUBJECTS = (
    "afarm",
    "afarm, not traced",
    "psutil every 10 ms",
    "psutil every 100 ms",
    "psutil every 1 s",
    "GNU time",
    "resource_monitor",
)
TRUTHS = (*truths.MEMORY, *truths.PROCESSOR)
# A bare interpreter as child has some 5 MiB, a worker has imported a module or two: what
# nobody can tell beforehand to the byte.
UNKNOWN = 4 * MIB


class Reading(NamedTuple):
    """What a monitor says: peak memory in bytes, at least and at most, and seconds of CPU."""

    low: float
    memory: float
    cpu_time: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the monitors."""
    return SUBJECTS


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Let one monitor watch every program once."""
    if subject.startswith("afarm"):
        return _by_afarm(subject)
    watch = _others(subject)
    idle = watch(Truth("nothing", truths.burn, (0.0,)))
    figures = []
    for truth in TRUTHS:
        said = watch(truth)
        figures += _errors(
            subject, truth, Reading(0.0, said.memory - idle.memory, said.cpu_time - idle.cpu_time)
        )
    return figures


def _errors(subject: str, truth: Truth, said: Reading) -> list[Figure]:
    """Return how far it is off: a share of the truth, or of what the program touched."""
    if truth.memory is not None:
        expected = truth.memory + truth.per_process
        off = said.memory - expected
        scale = truth.memory or float(str(truth.args[0]))
        return [Figure(subject, truth.name, "%", (100 * off / scale,))]
    assert truth.cpu_time is not None
    off = said.cpu_time - truth.cpu_time
    return [Figure(subject, truth.name, "%", (100 * off / truth.cpu_time,))]


def _by_afarm(subject: str) -> list[Figure]:
    import afarm

    figures: list[Figure] = []
    held, widths = 0, []
    memory_worst = cpu_worst = 0.0
    node = afarm.LocalNode(cores=2, memory="8 GiB")
    with afarm.Executor([node], progress=False, isolation="fork") as executor:
        view = executor.options(trace="not" not in subject)
        _usage(view.submit(truths.burn, 0.0))  # what the template does not know yet
        for truth in TRUTHS:
            usage = _usage(view.submit(truth.function, *truth.args))
            # The middle of the bracket is no figure of its own: the upper end is what counts.
            cpu_time = usage.cpu_time
            figures += _errors(subject, truth, Reading(usage.memory_low, usage.memory, cpu_time))
            if truth.memory is not None:
                expected = truth.memory + truth.per_process
                held += usage.memory_low - UNKNOWN <= expected <= usage.memory + UNKNOWN
                widths.append(usage.memory - usage.memory_low)
                nearest = min(max(expected, usage.memory_low), usage.memory)
                beyond = max(0.0, abs(nearest - expected) - UNKNOWN - MIB)
                memory_worst = max(memory_worst, 100 * beyond / (truth.memory or 300 * MIB))
            elif truth.cpu_time is not None:
                beyond = max(0.0, abs(cpu_time - truth.cpu_time) - 0.01)
                cpu_worst = max(cpu_worst, 100 * beyond / truth.cpu_time)
    return [
        *figures,
        Figure(subject, "brackets that hold the truth", "", (100.0 * held / len(widths),)),
        Figure(subject, "widest bracket", "B", (float(max(widths)),)),
        Figure(subject, "worst memory beyond 1 MiB", "%", (memory_worst,)),
        Figure(subject, "worst CPU beyond 10 ms", "%", (cpu_worst,)),
    ]


def _usage(future: Future[None]) -> Usage:
    future.result()
    usage = cast("CallFuture[None]", future).usage
    assert usage is not None
    return usage


def _command(truth: Truth) -> list[str]:
    arguments = json.dumps([truth.function.__name__, list(truth.args)])
    return [sys.executable, "-m", "benchmarks.truths", arguments]


def _others(subject: str) -> Callable[[Truth], Reading]:
    if subject.startswith("psutil"):
        period = {"10 ms": 0.01, "100 ms": 0.1, "1 s": 1.0}[subject.removeprefix("psutil every ")]
        return lambda truth: _polled(truth, period)
    program = {"GNU time": "time", "resource_monitor": "resource_monitor"}[subject]
    path = shutil.which(program)
    if path is None:
        raise CannotMeasure(f"no program {program} is installed here")
    return lambda truth: (_timed if program == "time" else _by_reference)(path, truth)


def _polled(truth: Truth, period: float) -> Reading:
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(_command(truth), cwd=folder, env=_environment())
        root = psutil.Process(child.pid)
        done = threading.Event()
        memory, times = 0, {}

        def poll() -> None:
            nonlocal memory
            while not done.is_set():
                total = 0
                try:
                    for process in [root, *root.children(recursive=True)]:
                        total += process.memory_info().rss
                        used = process.cpu_times()
                        times[process.pid] = used.user + used.system
                except psutil.Error:
                    pass  # gone meanwhile: this round counts as far as it came
                memory = max(memory, total)
                done.wait(period)

        watching = threading.Thread(target=poll)
        watching.start()
        assert child.wait() == 0
        done.set()
        watching.join()
    return Reading(0.0, memory, sum(times.values()))


def _timed(path: str, truth: Truth) -> Reading:
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        command = [path, "-f", "%M %U %S", "-o", str(told), *_command(truth)]
        subprocess.run(command, cwd=folder, env=_environment(), check=True)
        memory, user, system = map(float, told.read_text().split())
    return Reading(0.0, memory * 1024, user + system)


def _by_reference(path: str, truth: Truth) -> Reading:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "told")
        command = [path, "-O", str(prefix), "-i", "1", "--", *_command(truth)]
        subprocess.run(
            command, cwd=folder, env=_environment(), check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        summary = json.loads(Path(f"{prefix}.summary").read_text())
    memory, unit = summary["memory"]
    cpu_time, cpu_unit = summary["cpu_time"]
    scale = {"MB": 1e6, "MiB": MIB, "GB": 1e9}[unit]
    return Reading(0.0, memory * scale, cpu_time * {"s": 1.0, "us": 1e-6, "ms": 1e-3}[cpu_unit])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for subject in SUBJECTS[:2]:
        for metric, wanted, unit in (
            ("brackets that hold the truth", 100.0, " %"),
            ("worst memory beyond 1 MiB", 2.0, " %"),
            ("worst CPU beyond 10 ms", 2.0, " %"),
        ):
            value = median_of(figures, subject, metric)
            if value is not None:
                at_most = metric.startswith("worst")
                lines.append(aim(f"{subject}, {metric}", value, wanted, at_most=at_most, unit=unit))
    return lines
