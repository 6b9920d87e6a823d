"""Do calls that mostly wait share cores, and are calls that compute beside them no slower for it?

On a node of two cores: calls that wait for a second after a twentieth of it on the processor, and
among them a few that compute all the time, one after the other. Either each states a core, or
nobody states any, and cores are charged by what calls are seen to keep busy. What sharing costs a
call that computes is its wall time over its CPU time, beside the same where nothing waits. On a
machine that is busy with something else there is nothing to gain: while nearly all cores are in
use, by anyone, calls keep theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from . import calls
from .figures import Figure
from .question import CannotMeasure, aim, median_of

ALONE, APART, SHARED = "computing alone", "a core for each", "shared"
DONE, SLOWED = "the last that waits ends", "computing: wall time / CPU time"

_CORES = 2
_COMPUTES = 1.0  # s of CPU time
_WAITS, _WORKS = 1.0, 0.05  # s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how many calls are made."""
    parser.add_argument("--waiting", type=int, default=40, help="calls that mostly wait")
    parser.add_argument("--computing", type=int, default=6, help="calls that compute")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the ways of sharing."""
    return [ALONE, APART, SHARED]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Make all calls once."""
    if len(os.sched_getaffinity(0)) < _CORES:
        raise CannotMeasure(f"there are not {_CORES} cores")
    waiting = 0 if subject == ALONE else options.waiting
    took, slowed = asyncio.run(_run(waiting, options.computing, apart=subject == APART))
    figures = [Figure(subject, SLOWED, "", (slowed,))]
    return [Figure(subject, DONE, "s", (took,)), *figures] if waiting else figures


async def _run(waiting: int, computing: int, *, apart: bool) -> tuple[float, float]:
    """Return how long it took those that wait, and how much those that compute were slowed."""
    import afarm

    node = afarm.LocalNode(cores=_CORES, memory="4 GiB")
    async with afarm.Farm([node], progress=False, isolation="fork") as farm:
        stated: dict[str, Any] = {"memory": "64 MiB", **({"cores": 1} if apart else {})}
        computes = farm.options(category="computes", priority=1, **stated)
        waits = farm.options(category="waits", **stated)
        await computes.submit(calls.work_and_wait, 0.0, 0.0)  # the processes are there now
        began = time.perf_counter()
        many = [waits.submit(calls.work_and_wait, _WORKS, _WAITS) for _ in range(waiting)]
        ratios = []
        for _ in range(computing):
            call = computes.submit(calls.work_and_wait, _COMPUTES, 0.0)
            await call
            usage = call.attempts[-1].usage
            assert usage is not None
            ratios.append(usage.wall_time / usage.cpu_time)
        await asyncio.gather(*many)
        took = time.perf_counter() - began
    return took, sum(ratios) / len(ratios)


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare sharing with not sharing."""
    lines = []
    apart, shared = (median_of(figures, subject, DONE) for subject in (APART, SHARED))
    if apart is not None and shared is not None:
        lines.append(aim("shared: times as fast for those that wait", apart / shared, 2.0))
    for other in (ALONE, APART):
        before, after = (median_of(figures, subject, SLOWED) for subject in (other, SHARED))
        if before is not None and after is not None:
            name = f"computing beside them, to {other}"
            lines.append(aim(name, after / before, 1.1, at_most=True))
    return lines
