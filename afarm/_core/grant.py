"""What an invocation may use on a node, in numbers that add up exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..resources import Resources

# Cores are counted in millionths: integers, so that what is freed is exactly what was
# taken, however often it happens (0.1 ten times is not 1.0 in floating point).
CORE = 1_000_000

# What an invocation that states no cores at all still takes: one core holds a
# thousand of them, not endlessly many.
LEAST_CORES = CORE // 1000

PACKED = ("cores", "memory", "disk", "gpus")
Amounts = tuple[float, float, float, float]


def amounts(resources: Resources, absent: float) -> Amounts:
    """Return what is packed (`PACKED`) as numbers; ``absent`` where it is ``None``."""
    cores, memory, disk, gpus = (
        resources.cores,
        resources.memory,
        resources.disk,
        resources.gpus,
    )
    return (
        absent if cores is None or math.isinf(cores) else round(cores * CORE),
        absent if memory is None else memory,
        absent if disk is None else disk,
        absent if gpus is None else gpus,
    )


def capacity_amounts(capacity: Resources) -> Amounts:
    """Return a node's capacity as numbers: infinite where it is not limited by us."""
    return amounts(capacity, math.inf)


def holds(capacity: Resources, wanted: Resources) -> bool:
    """Tell whether an empty node of this capacity has room for what is wanted."""
    return within(amounts(wanted, 0), capacity_amounts(capacity))


def within(wanted: Amounts, free: Amounts) -> bool:
    """Tell whether all that is wanted is there."""
    return (
        wanted[0] <= free[0]
        and wanted[1] <= free[1]
        and wanted[2] <= free[2]
        and wanted[3] <= free[3]
    )


class Grant:
    """One allocation, worked out once for all invocations that get it.

    Compared by identity: a queue keeps its grant for as long as the allocation is equal.

    Args:
        allocation: What an invocation gets.
        charged: The part of its memory that a node is charged with at its start.
    """

    __slots__ = ("allocation", "cores", "disk", "gpus", "memory", "whole_memory")

    def __init__(self, allocation: Resources, charged: float = 1.0) -> None:
        self.allocation = allocation
        cores, self.whole_memory, self.disk, self.gpus = amounts(allocation, 0)
        self.memory = self.whole_memory if charged == 1.0 else int(charged * self.whole_memory)
        self.cores = max(cores, LEAST_CORES)

    @property
    def amounts(self) -> Amounts:
        """What it takes of a node, in the order of `PACKED`."""
        return self.cores, self.memory, self.disk, self.gpus

    def share(self, capacity: Sequence[float]) -> float:
        """Return the largest share of a capacity that it takes (dominant resource share).

        0 when nothing of what it takes is limited; Ghodsi et al., "Dominant Resource
        Fairness", NSDI 2011.
        """
        shares = [
            want / have if have else math.inf
            for want, have in zip(self.amounts, capacity, strict=True)
            if want
        ]
        return max(shares, default=0.0)

    def __repr__(self) -> str:
        return f"<Grant {self.allocation}>"
