"""Does a farm that is told nothing finish as soon as one that knows every peak, and stay alive?

The experiment for real: calls of five categories (`workloads`) with peaks from 50 to 460 MB,
on hosts whose kernel kills when memory runs out. Cold: nothing is known at the beginning but
the packages, which every host has. Oracle: each call states the peak that was measured before,
and a tenth more. Guess: each states 512 MiB, as a careful user would. Unmanaged: one call for each
core, whatever it takes. The hosts share this machine's cores, so CPU is scarce for everyone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .figures import Figure
from .hosts import Hosts, hosts
from .plots import bars
from .question import CannotMeasure, aim, median_of
from .workloads import Work, missing, plan

SUBJECTS = ("Oracle", "Auto", "Guess", "Unmanaged")
_TESTBED = 186

_MIB = 1 << 20
# What a host has for everything: its disk is memory too, and the packages take 0.5 GB of it.
_HOST = 1900 * _MIB
# What the farm is told that it has for calls.
_FOR_CALLS = 900 * _MIB
_CORES = 6
_GUESS = 512 * _MIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how many calls are made, and where."""
    parser.add_argument("--calls", type=int, default=160)
    parser.add_argument("--hosts", type=int, default=2, help="0: this machine, without a limit")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the ways of sizing that are compared."""
    return SUBJECTS


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Run all calls once, and watch the hosts meanwhile."""
    if lacking := missing():
        raise CannotMeasure(f"its input is in {', '.join(lacking)}: pip install 'afarm[bench]'")
    if not options.hosts:
        return asyncio.run(_experiment(subject, options, [], None))
    with hosts(_TESTBED, options.hosts, "--mem", f"{_HOST // _MIB}m", "--disk", "3g") as bed:
        watches = [Watch(f"h{number + 1}") for number in range(options.hosts)]
        return asyncio.run(_experiment(subject, options, watches, bed))


class Watch:
    """A host's memory, read from its control group all the time.

    Args:
        host: Its name.

    Attributes:
        peak: The most that could not be given back: processes and files in memory.
    """

    def __init__(self, host: str) -> None:
        found = [*Path("/sys/fs/cgroup").glob(f"**/aftb{_TESTBED}-{host}/memory.stat")]
        if not found:
            raise CannotMeasure("no control group that limits the memory of a host")
        self._folder = found[0].parent
        self.peak = 0
        self._end = threading.Event()
        self._killed_before = self.killed
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def begin(self) -> None:
        """Start to look at it every 50 ms."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    @property
    def kills(self) -> int:
        """Processes that the kernel killed for memory meanwhile."""
        return self.killed - self._killed_before

    @property
    def killed(self) -> int:
        """Processes that the kernel ever killed for memory here."""
        for name in ("memory.events", "memory.oom_control"):
            file = self._folder / name
            if file.exists():
                return int(dict(_pairs(file)).get("oom_kill", "0"))
        return 0

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            stat = dict(_pairs(self._folder / "memory.stat"))
            names = ("total_rss", "total_shmem") if "total_rss" in stat else ("anon", "shmem")
            self.peak = max(self.peak, sum(int(stat.get(name, "0")) for name in names))


def _pairs(file: Path) -> list[tuple[str, str]]:
    pairs = (line.split() for line in file.read_text().splitlines())
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


@dataclass(frozen=True, slots=True)
class _Run:
    """What became of all calls.

    Attributes:
        seconds: From the first submitted to the last ended.
        failed: Calls without a result.
        peaks: Of each call, the largest of all its attempts.
        efficiency: Memory used over allocated, weighted by time; ``None`` without limits.
        stats: The farm's.
    """

    seconds: float
    failed: int
    peaks: list[int]
    efficiency: float | None
    stats: Any


async def _experiment(
    subject: str, options: argparse.Namespace, watches: Sequence[Watch], bed: Hosts | None
) -> list[Figure]:
    works = plan(options.calls)
    nodes = _nodes(options.hosts, bed)
    peaks = None
    if subject == "Oracle":
        peaks = (await _run("auto", nodes, works, None, [])).peaks
    elif subject == "Guess":
        peaks = [_GUESS * 10 // 11] * len(works)
    sizing = "unmanaged" if subject == "Unmanaged" else "auto"
    done = await _run(sizing, nodes, works, peaks, watches)
    figures = [
        Figure(subject, "time", "s", (done.seconds,)),
        Figure(subject, "failed", "", (float(done.failed),)),
        Figure(subject, "tried again", "", (float(done.stats.attempts - len(works)),)),
        Figure(subject, "lost nodes", "", (float(done.stats.lost),)),
    ]
    if done.efficiency is not None:
        figures.append(Figure(subject, "used of allocated", "", (done.efficiency,)))
    if watches:
        figures.append(
            Figure(subject, "peak of a host", "B", (float(max(w.peak for w in watches)),))
        )
        figures.append(
            Figure(subject, "killed by the kernel", "", (float(sum(w.kills for w in watches)),))
        )
    return figures


def _nodes(count: int, bed: Hosts | None) -> list[Any]:
    import afarm

    if bed is None:
        return [afarm.LocalNode(cores=_CORES, memory=_FOR_CALLS)]
    return [
        afarm.SSHNode(f"h{number + 1}", config=bed.config, cores=_CORES, memory=_FOR_CALLS)
        for number in range(count)
    ]


async def _run(
    sizing: str,
    nodes: Sequence[Any],
    works: Sequence[Work],
    peaks: Sequence[int] | None,
    watches: Sequence[Watch],
) -> _Run:
    """Make all calls on a new farm; state peaks and a tenth more if they are known."""
    import afarm

    async with afarm.Farm(nodes, sizing=sizing, progress=False) as farm:
        await _bring_packages(farm, nodes, works)
        before = farm.stats()
        for watch in watches:
            watch.begin()
        began = time.perf_counter()
        calls = []
        for number, work in enumerate(works):
            memory = None if peaks is None else peaks[number] + peaks[number] // 10
            view = farm.options(category=work.category, cores=1, memory=memory)
            calls.append(view.submit(work.function, *work.arguments))
        results = await asyncio.gather(*calls, return_exceptions=True)
        seconds = time.perf_counter() - began
        for watch in watches:
            watch.end()
        stats = farm.stats()
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures[:3]:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
    tried = [
        [(one.usage, one.allocation) for one in call.attempts if one.usage is not None]
        for call in calls
    ]
    return _Run(
        seconds,
        len(failures),
        [max((usage.memory for usage, _ in attempts), default=_GUESS) for attempts in tried],
        _efficiency([one for attempts in tried for one in attempts]),
        _since(before, stats),
    )


def _efficiency(attempts: Sequence[tuple[Any, Any]]) -> float | None:
    limited = [(usage, size.memory) for usage, size in attempts if size.memory]
    allocated = sum(memory * usage.wall_time for usage, memory in limited)
    used = sum(min(usage.memory, memory) * usage.wall_time for usage, memory in limited)
    return used / allocated if allocated else None


async def _bring_packages(farm: Any, nodes: Sequence[Any], works: Sequence[Work]) -> None:
    """Have every node keep the packages of every function; what that shows is not learned from."""
    least: dict[str, Work] = {}
    for work in works:
        if work.category not in least:
            least[work.category] = work
    for node in nodes:
        view = farm.options(category="packages", node=node.name, cores=1, memory=_FOR_CALLS)
        for work in least.values():
            await view.submit(work.function, *work.arguments)


def _since(before: Any, after: Any) -> Any:
    """Return the counts of what happened between two moments."""
    import dataclasses

    counted = ("attempts", "lost", "exhausted", "evictions", "failed")
    return dataclasses.replace(
        after, **{name: getattr(after, name) - getattr(before, name) for name in counted}
    )


def plots(figures: Sequence[Figure]) -> dict[str, str]:
    """Draw how long it took, how full hosts were, and what was used of what was allocated."""
    shown = {
        "time": ("time", "seconds until the last call had ended", 1.0),
        "efficiency": ("used of allocated", "memory used of memory allocated", 1.0),
        "peak": ("peak of a host", f"most memory in use on a host of {_HOST // _MIB} MiB", _MIB),
    }
    return {
        name: bars(title, {who: {metric: value / unit} for who, value in values.items()})
        for name, (metric, title, unit) in shown.items()
        if (values := {f.subject: f.median for f in figures if f.metric == metric})
    }


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what knows every peak."""
    lines = []
    oracle = median_of(figures, "Oracle", "time")
    took = median_of(figures, "Auto", "time")
    if oracle is not None and took is not None:
        lines.append(aim("Auto, times the oracle's time", took / oracle, 1.1, at_most=True))
    for metric in ("failed", "killed by the kernel", "lost nodes"):
        value = median_of(figures, "Auto", metric)
        if value is not None:
            lines.append(aim(f"Auto, {metric}", value, 0, at_most=True))
    return lines
