"""How long do a kill and a small result take while 2 GB travel over a link of 20 Mbit/s?

Needs root and Linux: the link is one of ``tests/testbed.py``, which shapes it with the
kernel's own means. Bulk is paced so that control frames never queue behind much of it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from . import calls
from .figures import Figure
from .hosts import Hosts, hosts
from .question import CannotMeasure, aim, median_of

SUBJECT = "afarm over 20 Mbit/s, 20 ms"
_TESTBED = 187


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how much travels and how often is measured."""
    parser.add_argument("--bulk", type=int, default=2_000_000_000, help="bytes that travel")
    parser.add_argument("--samples", type=int, default=40, help="kills and results in a round")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the one subject."""
    return [SUBJECT]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Bring up a host behind a slow link, and measure while bulk travels to it."""
    with hosts(_TESTBED, 1) as bed:
        bed.run("shape", "h1", "20ms", "20mbit")
        results, kills = asyncio.run(_latencies(options, bed))
    return [
        Figure(subject, "small result, p50", "s", (statistics.median(results),)),
        Figure(subject, "p99 ", "s", (statistics.quantiles(results, n=100)[98],)),
        Figure(subject, "kill, p50", "s", (statistics.median(kills),)),
        Figure(subject, "p99", "s", (statistics.quantiles(kills, n=100)[98],)),
    ]


async def _latencies(options: argparse.Namespace, bed: Hosts) -> tuple[list[float], list[float]]:
    """Return what small results and kills took while an argument was on its way."""
    import afarm

    node = afarm.SSHNode("h1", config=bed.config, cores=4)
    async with afarm.Farm([node], isolation="fork", progress=False) as whole:
        farm = whole.options(cores=1, memory="64 MiB")
        await farm.submit(calls.echo, 1)
        bulk = whole.options(cores=1).submit(calls.length, bytes(options.bulk))
        # Let the sender find the link's rate.
        await asyncio.sleep(3)
        results, kills = [], []
        for number in range(options.samples):
            began = time.perf_counter()
            assert await farm.submit(calls.echo, number) == number
            results.append(time.perf_counter() - began)
            kills.append(await _kill(whole, farm))
        if bulk.done():
            raise CannotMeasure("the bulk had arrived before the end: raise --bulk")
        bulk.cancel()
    return results, kills


async def _kill(whole: Any, farm: Any) -> float:
    """Return how long a running call takes from its cancelling until its room is free."""
    before = whole.nodes[0].running
    victim = farm.submit(calls.sleep, 600)
    while victim.state != "running" or whole.nodes[0].running <= before:
        await asyncio.sleep(0.01)
    # Running, as far as the farm knows, is sent; let it begin for real.
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    victim.cancel()
    while whole.nodes[0].running > before:
        await asyncio.sleep(0.002)
    return time.perf_counter() - began


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for name, metric in (("small result", "p99 "), ("kill", "p99")):
        value = median_of(figures, SUBJECT, metric)
        if value is not None:
            lines.append(aim(f"{name}, p99", value, 0.5, at_most=True, unit=" s"))
    return lines
