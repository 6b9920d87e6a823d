"""The farms that traces are replayed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from afarm.resources import Resources

from .trace import Call

GB = 1_000_000_000
CORES = 16
_MOST_NODES = 10


def _balanced(calls: Sequence[Call], share: float = 1.0) -> tuple[int, int, int]:
    """Return nodes, cores and bytes so that memory and cores are about equally scarce.

    Args:
        calls: The workload.
        share: Of the memory that would be as scarce as the cores.
    """
    core_seconds = sum(call.cores * call.wall_time for call in calls)
    byte_seconds = sum(call.memory * call.wall_time for call in calls)
    each = share * byte_seconds / core_seconds  # bytes for each core
    largest = 1.25 * max(call.memory for call in calls)
    cores = max(CORES, math.ceil(largest / each), math.ceil(max(call.cores for call in calls)))
    longest = max(call.wall_time for call in calls)
    nodes = int(core_seconds / cores / (4 * longest))
    return max(1, min(_MOST_NODES, nodes)), cores, round(cores * each)


def balanced(calls: Sequence[Call]) -> list[Resources]:
    """Return nodes on which memory and cores are about equally scarce."""
    nodes, cores, memory = _balanced(calls)
    return [Resources(cores=cores, memory=memory)] * nodes


def memory_scarce(calls: Sequence[Call]) -> list[Resources]:
    """Return nodes with half the memory for each core."""
    nodes, cores, memory = _balanced(calls, 0.5)
    return [Resources(cores=cores, memory=memory)] * nodes


def ten(calls: Sequence[Call]) -> list[Resources]:
    """Return ten nodes of 16 cores and 64 GB."""
    largest = max(call.memory for call in calls)
    return [Resources(cores=CORES, memory=max(64 * GB, round(1.25 * largest)))] * 10


def unequal(calls: Sequence[Call]) -> list[Resources]:
    """Return nodes of four sizes with the balance of `balanced`."""
    _, cores, memory = _balanced(calls)
    return [
        Resources(cores=max(1, round(cores * factor)), memory=round(memory * factor))
        for factor in (1.0, 0.5, 0.25, 2.0)
    ]


FARMS: dict[str, Callable[[Sequence[Call]], list[Resources]]] = {
    "balanced": balanced,
    "memory scarce": memory_scarce,
    "10 x 16 cores, 64 GB": ten,
    "unequal": unequal,
}
