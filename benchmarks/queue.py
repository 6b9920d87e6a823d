"""Does a call cost more when many wait: 100,000 instead of 1,000, and how many bytes each?"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import calls
from .figures import Figure
from .question import aim, median_of

FEW = "afarm reuse, 1,000 queued"
MANY = "afarm reuse, 100,000 queued"
WAITING = "afarm, waiting"
_NUMBERS = {FEW: 1_000, MANY: 100_000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the two lengths of the queue, and the memory of what waits."""
    return [FEW, MANY, WAITING]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Measure one of them once."""
    from .peers.farm import AfarmPeer

    peer = AfarmPeer("reuse")
    peer.open()
    try:
        if subject == WAITING:
            return [Figure(subject, "memory per call", "B", (peer.run(_bytes_each(peer)),))]
        # The first thousands bring workers and sizes to where they stay.
        peer.call_all(calls.echo, range(3_000))
        number = _NUMBERS[subject]
        batches = max(1, 20_000 // number)
        began = time.perf_counter()
        for _ in range(batches):
            peer.call_all(calls.echo, range(number))
        each = (time.perf_counter() - began) / (batches * number)
        return [Figure(subject, "time per call", "s", (each,))]
    finally:
        peer.close()


async def _bytes_each(peer: object) -> float:
    """Return how much this process grows for each call that waits behind long ones."""
    import psutil

    from .peers.farm import AfarmPeer

    assert isinstance(peer, AfarmPeer)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        long = [peer.farm.submit(calls.hold, str(release)) for _ in range(2)]
        while any(one.state != "running" for one in long):
            await asyncio.sleep(0.01)
        first = [peer.farm.submit(calls.echo, number) for number in range(10_000)]
        await asyncio.sleep(0.2)
        gc.collect()
        before = process.memory_info().rss
        number = 100_000
        more = [peer.farm.submit(calls.echo, number) for number in range(number)]
        await asyncio.sleep(0.5)
        gc.collect()
        grown = process.memory_info().rss - before
        release.touch()
        await asyncio.gather(*long, *first, *more)
    return grown / number


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    few, many = (median_of(figures, name, "time per call") for name in (FEW, MANY))
    if few is not None and many is not None:
        # Two tenths are what rounds differ by.
        lines.append(aim("100,000 queued, times the cost of 1,000", many / few, 1.2, at_most=True))
    each = median_of(figures, WAITING, "memory per call")
    if each is not None:
        lines.append(aim("a waiting invocation", each, 2000, at_most=True, unit=" B"))
    return lines
