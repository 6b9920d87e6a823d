"""How close to an oracle does each way of sizing come, in makespan, efficiency and retries?

Calls whose needs are known are replayed through the real `FarmState` in simulated time: memory
grows over each call as its ramp says, a call that is stopped costs the time it ran, a node
that runs out of memory loses all that it runs. Nothing is known at the beginning. The oracle
knows every peak and keeps to it; it can be beaten, since peaks do not coincide.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from afarm.resources import Resources
from afarm.sizing import (
    AutoSizer,
    Ensemble,
    ExhaustiveBucketing,
    FirstAllocation,
    Fixed,
    GreedyBucketing,
    MaxSeen,
    Oracle,
    Percentile,
    Sizer,
    Unmanaged,
    WholeNode,
)

from .figures import Figure
from .plots import Dot, bars, dots
from .question import aim, median_of
from .replay.farm import FARMS
from .replay.simulation import Outcome, replay
from .replay.trace import Call, load, made, sample

_GUESS = 2.0  # of the largest peak: what a cautious user states


@dataclass(frozen=True, slots=True)
class _Subject:
    """A sizer, and how the farm packs with it."""

    make: Callable[[Sequence[Call]], Sizer]
    mode: str = "hard"
    limited: bool = True
    late: int = 0
    warm: bool = False


def _guess(calls: Sequence[Call]) -> Sizer:
    largest = max(call.memory for call in calls)
    return Fixed(Resources(cores=1, memory=int(_GUESS * largest)))


def _auto(calls: Sequence[Call]) -> Sizer:
    return AutoSizer()


SUBJECTS = {
    "oracle": _Subject(lambda calls: Oracle()),
    "whole node": _Subject(lambda calls: WholeNode()),
    "unmanaged": _Subject(lambda calls: Unmanaged(), limited=False),
    "a generous guess": _Subject(_guess),
    "max seen": _Subject(lambda calls: MaxSeen()),
    "first allocation, waste": _Subject(lambda calls: FirstAllocation()),
    "first allocation, throughput": _Subject(lambda calls: FirstAllocation(throughput=True)),
    "greedy bucketing": _Subject(lambda calls: GreedyBucketing()),
    "exhaustive bucketing": _Subject(lambda calls: ExhaustiveBucketing()),
    "percentile": _Subject(lambda calls: Percentile()),
    "ensemble": _Subject(lambda calls: Ensemble()),
    "auto, hard": _Subject(_auto),
    "auto, elastic": _Subject(_auto, "elastic"),
    "auto, elastic, warm": _Subject(_auto, "elastic", warm=True),
    "auto, live": _Subject(_auto, "live"),
    "auto, live, each 20th eviction too late": _Subject(_auto, "live", late=20),
}

MAKESPAN, WORST = "makespan / oracle's", "worst"
EFFICIENCY, LEAST = "efficiency", "least"
REPEATED, UNFINISHED = "stopped, a call", "unfinished"
UNUSED, LOST = "GB·h held unused", "GB·h lost in failures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is replayed where."""
    parser.add_argument("--traces", type=Path, help="a folder of CSV files; default: made ones")
    parser.add_argument("--half", choices=("even", "odd"), help="only every second trace")
    parser.add_argument("--calls", type=int, default=400, help="of each trace")
    parser.add_argument("--seed", type=int, default=1, help="of the traces that are made")
    parser.add_argument(
        "--farms", nargs="+", choices=tuple(FARMS), default=["balanced", "memory scarce"]
    )


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return every sizer, and the default one in each way of packing."""
    return list(SUBJECTS)


def _workloads(options: argparse.Namespace) -> dict[str, list[Call]]:
    if options.traces is None:
        found = made(options.calls, options.seed)
    else:
        found = {n: sample(calls, options.calls) for n, calls in load(options.traces).items()}
    if options.half:
        names = sorted(found)[0 if options.half == "even" else 1 :: 2]
        found = {name: found[name] for name in names}
    return found


def _told(calls: Sequence[Call]) -> list[Call]:
    """Return the same calls, with what they need as their features."""
    return [
        replace(call, features={"oracle.memory": call.memory, "oracle.cores": call.cores})
        for call in calls
    ]


def _play(subject: _Subject, calls: Sequence[Call], nodes: Sequence[Resources]) -> Outcome:
    sizer = subject.make(calls)
    if isinstance(sizer, Oracle):
        calls = _told(calls)
    if subject.warm:
        replay(calls, nodes, sizer, mode=subject.mode)
    return replay(
        calls, nodes, sizer, mode=subject.mode, limited=subject.limited, late=subject.late
    )


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Replay every workload on every farm with one sizer."""
    ratios, outcomes, counts, parts = [], [], [], []
    for name, calls in _workloads(options).items():
        for farm in options.farms:
            nodes = FARMS[farm](calls)
            oracle = _play(SUBJECTS["oracle"], calls, nodes)
            outcome = oracle if subject == "oracle" else _play(SUBJECTS[subject], calls, nodes)
            ratios.append(outcome.makespan / oracle.makespan)
            outcomes.append(outcome)
            counts.append(len(calls))
            part = f"{name}, {farm}"
            parts.append(Figure(subject, MAKESPAN, "", (ratios[-1],), part))
            parts.append(Figure(subject, EFFICIENCY, "", (outcome.efficiency,), part))
    finished = [ratio for ratio in ratios if math.isfinite(ratio)]
    efficiencies = [outcome.efficiency for outcome in outcomes]
    again = sum(each.retries + each.evictions for each in outcomes)
    hour = 3600e9
    over = sum(each.held - each.used for each in outcomes) / hour
    failed = sum(each.wasted_by_failures for each in outcomes) / hour
    deciding = sum(each.deciding for each in outcomes) / sum(counts)
    found = [
        (MAKESPAN, "", math.exp(sum(map(math.log, finished)) / max(1, len(finished)))),
        (WORST, "", max(finished, default=0.0)),
        (EFFICIENCY, "", sum(efficiencies) / len(efficiencies)),
        (LEAST, "", min(efficiencies)),
        (REPEATED, "", again / sum(counts)),
        (UNUSED, "", over),
        (LOST, "", failed),
        (UNFINISHED, "", float(len(ratios) - len(finished))),
        ("deciding, a call", "s", deciding),
    ]
    return [*(Figure(subject, metric, unit, (value,)) for metric, unit, value in found), *parts]


def plots(figures: Sequence[Figure]) -> dict[str, str]:
    """Draw makespan and efficiency of each trace on each farm, and what was wasted."""
    return {
        "makespan": _dots(figures, MAKESPAN, "makespan, relative to an oracle's", True),
        "efficiency": _dots(figures, EFFICIENCY, "memory used of memory set aside", False),
        "waste": bars(
            "memory set aside in vain, GB·h over all traces",
            {
                subject: {
                    "held unused": max(0.0, median_of(figures, subject, UNUSED) or 0.0),
                    "lost in failures": median_of(figures, subject, LOST) or 0.0,
                }
                for subject in dict.fromkeys(figure.subject for figure in figures)
            },
        ),
    }


def _dots(figures: Sequence[Figure], metric: str, title: str, logarithmic: bool) -> str:
    rows: dict[str, list[Dot]] = {}
    for figure in figures:
        row = rows.setdefault(figure.subject, [])
        if figure.metric == metric and figure.part:
            trace, _, farm = figure.part.partition(", ")
            row.append(Dot(trace, figure.median, farm))
    means = {
        subject: mean
        for subject in rows
        if (mean := median_of(figures, subject, metric)) is not None
    }
    return dots(f"{title}; line: mean", rows, means, logarithmic=logarithmic)


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what the default sizer should reach, for each way of packing."""
    lines = []
    for subject, mean, worst in (
        ("auto, hard", 1.30, 1.9),
        ("auto, elastic", 1.15, 1.45),
        ("auto, elastic, warm", 1.10, 1.45),
        ("auto, live", 0.98, 1.05),
    ):
        for metric, wanted in ((MAKESPAN, mean), (WORST, worst)):
            value = median_of(figures, subject, metric)
            if value is not None:
                lines.append(aim(f"{subject}: {metric}", value, wanted, at_most=True))
    value = median_of(figures, "auto, elastic", EFFICIENCY)
    if value is not None:
        lines.append(aim("auto, elastic: efficiency", value, 0.85))
    for subject, wanted in (("auto, elastic", 0.06), ("auto, live", 0.05)):
        value = median_of(figures, subject, REPEATED)
        if value is not None:
            lines.append(aim(f"{subject}: {REPEATED}", value, wanted, at_most=True))
    value = median_of(figures, "auto, live, each 20th eviction too late", UNFINISHED)
    if value is not None:
        lines.append(aim("late evictions: traces unfinished", value, 0, at_most=True))
    return lines
