"""An amount that something allows, and what that is. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Bound(NamedTuple):
    """An upper limit.

    Attributes:
        amount: Of what is limited, in base units.
        source: What sets it, for people: ``"SLURM_MEM_PER_NODE"``.
    """

    amount: float
    source: str


def least(bounds: Iterable[Bound]) -> Bound | None:
    """Return the lowest limit, the first of equals, or ``None`` where nothing limits."""
    return min(bounds, key=lambda bound: bound.amount, default=None)
