"""What does a call cost that does nothing: all at once, and one at a time?

Two workers everywhere. afarm measures every call's time and peak memory and limits its
memory; none of its peers does. The floors are what remains when everything but the
process is taken away. Also: what an idle agent occupies.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from . import calls
from .figures import Figure
from .peers import NAMES, make_peer
from .peers.base import Peer
from .question import aim, median_of

IDLE = "afarm, idle agent"
# Long enough for a rate that does not depend on how the first calls went.
SECONDS = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how many calls are made."""
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each rate")
    parser.add_argument("--most", type=int, default=50_000, help="calls at once")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the systems compared, the floors and the idle agent."""
    return [*NAMES, IDLE]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Measure one system once."""
    if subject == IDLE:
        return [_idle_agent()]
    peer = make_peer(subject)
    peer.open()
    try:
        rate = _rate(peer, options.seconds, options.most)
        trips = _round_trips(peer, options.seconds)
    finally:
        peer.close()
    cuts = statistics.quantiles(trips, n=100)
    return [
        Figure(subject, "calls/s, all at once", "/s", (rate,)),
        Figure(subject, "one at a time, p50", "s", (statistics.median(trips),)),
        Figure(subject, "p99", "s", (cuts[98],)),
    ]


def _rate(peer: Peer, seconds: float, most: int) -> float:
    """Return calls per second of a batch that takes about ``seconds``."""
    # The first calls bring the function to the workers, and a pool to where it stays.
    number = 20
    warm_until = time.perf_counter() + seconds / 2
    peer.call_all(calls.echo, range(number))
    while time.perf_counter() < warm_until:
        peer.call_all(calls.echo, range(number))
    while True:
        began = time.perf_counter()
        results = peer.call_all(calls.echo, range(number))
        took = time.perf_counter() - began
        if sorted(results) != list(range(number)):
            raise RuntimeError("some calls were lost, or answered twice")
        if took > seconds / 3 or number >= most:
            return number / took
        number = min(most, max(2 * number, int(number * seconds / took)))


def _round_trips(peer: Peer, seconds: float) -> list[float]:
    """Return what each of the calls took that fit into ``seconds``, at least 20."""
    [first] = peer.round_trips(calls.nothing, 1)
    warm = peer.round_trips(calls.nothing, 10)
    each = min(first, statistics.median(warm))
    return peer.round_trips(calls.nothing, max(20, min(5000, int(seconds / each))))


def _idle_agent() -> Figure:
    import psutil

    from .peers.farm import AfarmPeer

    peer = AfarmPeer()
    peer.open()
    try:
        [agent] = psutil.Process().children()
        resident = agent.memory_info().rss
    finally:
        peer.close()
    return Figure(IDLE, "resident", "B", (float(resident),))


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    rate, trip = "calls/s, all at once", "one at a time, p50"
    lines = []
    for ours, metric, peer, factor in (
        ("afarm reuse", rate, "ProcessPoolExecutor", 1.0),
        ("afarm reuse", rate, "Ray", 10.0),
        ("afarm reuse", rate, "Dask", 30.0),
        ("SSH: afarm reuse", rate, "SSH: execnet", 1.0),
        ("afarm fork", rate, "floor: fork and wait4", 0.8),
        ("afarm fork", rate, "multiprocessing.Pool, a child a call", 1.0),
    ):
        mine, theirs = median_of(figures, ours, metric), median_of(figures, peer, metric)
        if mine is not None and theirs is not None:
            lines.append(aim(f"{ours}, times the rate of {peer}", mine / theirs, factor))
    for ours, most in (("afarm reuse", 0.3), ("SSH: afarm reuse", 0.5)):
        mine = median_of(figures, ours, trip)
        if mine is not None:
            lines.append(aim(f"{ours}, p50", mine * 1e3, most, at_most=True, unit=" ms"))
    resident = median_of(figures, IDLE, "resident")
    if resident is not None:
        lines.append(aim(IDLE, resident / 1e6, 25.0, at_most=True, unit=" MB"))
    return lines
