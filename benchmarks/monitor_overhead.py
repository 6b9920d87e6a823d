"""What does monitoring cost: a call, and a call that runs on and on?

A call: one slot is kept busy with calls that do nothing, in a fresh process each (fork) or in
the same one (reuse). The floors are measured inside a worker of the same template, so from the
same process image: a bare fork with a pipe and ``wait4``, a bare round trip over two pipes, and
the meter alone (its marks and counters reset and read). What is added on top of the floor is
everything: messages, limits, output, scratch directory, and the monitor.

Running on: processor time of the agent and all its supervisors while calls sleep, with and
without threads and a child each, in cores; their limit of 8 GiB is out of reach.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import afarm
from afarm._agent import system
from afarm._monitor.meter import Meter

from . import calls
from .figures import Figure
from .question import aim, median_of

SECONDS = 20.0
CALLS = 1000
# Calls that cost so much less are the more: the farm learns meanwhile how short they are.
TIMES = {"fork": 1, "reuse": 20}
RUNNING = (1, 10, 100)
THREADS = 16

# Seconds that may be added to a bare fork, and to a bare round trip.
ADDED = {"fork": 0.5e-3, "reuse": 30e-6}
# Cores that ten calls may take, without and with a child each.
CORES = {
    "10 running": 0.01,
    f"10 running, {THREADS} threads each": 0.05,
    "10 running, a child each": 0.05,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare for how long."""
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that calls sleep")
    parser.add_argument("--calls", type=int, default=CALLS, help="in a row")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return ways to run calls, and numbers of calls that run."""
    return [
        *ADDED,
        *(f"{number} running" for number in RUNNING),
        f"10 running, {THREADS} threads each",
        *(f"{number} running, a child each" for number in RUNNING),
    ]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Measure one of them once."""
    if subject in ADDED:
        return _calls(subject, options.calls)
    return _sleeping(subject, options.seconds)


# --- a call


def _calls(isolation: str, number: int) -> list[Figure]:
    return asyncio.run(_call_on_a_farm(isolation, number))


async def _call_on_a_farm(isolation: str, number: int) -> list[Figure]:
    floor = bare_fork if isolation == "fork" else bare_round_trip
    node = afarm.LocalNode(cores=1)
    async with afarm.Farm([node], isolation=isolation, progress=False) as farm:
        view = farm.options(cores=1, memory="256 MiB")
        await _in_a_row(view, number * TIMES[isolation] // 4)
        monitored = await _in_a_row(view, number * TIMES[isolation])
        bare = await view.submit(floor, number)
        meter = await view.submit(meter_alone, number)
    return [
        Figure(isolation, "a call", "s", (monitored,)),
        Figure(isolation, "bare", "s", (bare,)),
        Figure(isolation, "added", "s", (monitored - bare,)),
        Figure(isolation, "of it the meter", "s", (meter,)),
    ]


async def _in_a_row(view: Any, number: int) -> float:
    """Return seconds per call while one slot is kept busy."""
    began = time.perf_counter()
    await asyncio.gather(*[view.submit(calls.nothing) for _ in range(number)])
    return (time.perf_counter() - began) / number


def bare_fork(number: int) -> float:
    """Return seconds for a child that answers over a pipe and is waited for: the median."""

    def once() -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"x")
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        os.wait4(child, 0)

    return _median(once, number)


def bare_round_trip(number: int) -> float:
    """Return seconds for a byte to a child and back: the median."""
    (their_end, ours), (back, theirs) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            while os.read(their_end, 1):
                os.write(theirs, b"x")
        finally:
            os._exit(0)

    def once() -> None:
        os.write(ours, b"x")
        os.read(back, 1)

    took = _median(once, number)
    for descriptor in (ours, their_end, back, theirs):
        os.close(descriptor)
    os.waitpid(child, 0)
    return took


def meter_alone(number: int) -> float:
    """Return seconds for measuring a call of a reused process: the median."""
    meter = Meter(system.move_high)

    def once() -> None:
        meter.begin(again=True)
        meter.finish(1e-6)

    return _median(once, number)


def _median(once: Callable[[], None], number: int) -> float:
    took = []
    for _ in range(number):
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


# --- calls that run on


def child_that_sleeps(seconds: float) -> None:
    """Have a child that sleeps."""
    subprocess.run(["sleep", str(seconds)], check=True)


def threads_that_sleep(seconds: float) -> None:
    """Have threads that sleep."""
    running = [threading.Thread(target=time.sleep, args=(seconds,)) for _ in range(THREADS - 1)]
    for each in running:
        each.start()
    time.sleep(seconds)


def _sleeping(subject: str, seconds: float) -> list[Figure]:
    import psutil

    number = int(subject.split()[0])
    function = calls.sleep
    if "child" in subject:
        function = child_that_sleeps
    elif "threads" in subject:
        function = threads_that_sleep
    node = afarm.LocalNode(cores=number, memory=number << 33)
    with afarm.Executor([node], isolation="fork", retries=0, progress=False) as executor:
        view = executor.options(cores=1, memory="8 GiB")
        futures = [view.submit(function, 10 * seconds) for _ in range(number)]
        [agent] = psutil.Process().children()
        names = {"sleep"} if "child" in subject else set()
        # They all run, and the first seconds, in which more is looked at, are over.
        while not all(future.running() for future in futures) or (
            names and len(_named(agent, "sleep")) < number
        ):
            time.sleep(0.1)
        time.sleep(3.0)
        before = _processor_time(agent)
        began = time.perf_counter()
        time.sleep(seconds)
        used = _processor_time(agent) - before
        passed = time.perf_counter() - began
        for future in futures:
            future.cancel()
    return [Figure(subject, "of a core", "", (used / passed,))]


def _named(agent: Any, name: str) -> list[Any]:
    return [each for each in agent.children(recursive=True) if each.name() == name]


def _processor_time(agent: Any) -> float:
    """Return the seconds that a tree has used; the calls in it sleep and use none."""
    total = 0
    for process in (agent, *agent.children(recursive=True)):
        with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total * 1e-9


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what it may cost."""
    lines = []
    for isolation, most in ADDED.items():
        added = median_of(figures, isolation, "added")
        if added is not None:
            lines.append(
                aim(f"added to {isolation}", added * 1e6, most * 1e6, at_most=True, unit=" µs")
            )
    for subject, cores in CORES.items():
        used = median_of(figures, subject, "of a core")
        if used is not None:
            lines.append(aim(f"{subject}, of a core", used, cores, at_most=True))
    return lines
