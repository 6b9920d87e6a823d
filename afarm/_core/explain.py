"""Why an invocation waits: what each node says to it. Pure: from views to words."""

from __future__ import annotations

from dataclasses import dataclass

from ..resources import Resources, format_bytes
from .grant import PACKED, holds
from .node import NodeState, NodeView


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stands against an invocation's start on one node; ``open`` if nothing does.

    Attributes:
        node: Its name.
        open: Whether it has room now.
        why: What is so, in words.
    """

    node: str
    open: bool
    why: str


def judge(node: NodeView, wanted: Resources | None, only: str | None) -> Verdict:
    """Return what a node says to an invocation that waits.

    Args:
        node: As it is now.
        wanted: What the invocation would get; ``None`` while no node could hold it.
        only: The one node that its user named, if any.
    """
    if only is not None and node.name != only:
        return Verdict(node.name, False, f"not asked: its user named {only}")
    if node.state is not NodeState.UP:
        reason = f" ({node.reason})" if node.reason else ""
        return Verdict(node.name, False, f"is {node.state.value}{reason}")
    capacity = node.capacity or Resources()
    if wanted is None or not holds(capacity, wanted):
        lacks = _lacks(capacity, Resources(), wanted) or "no node of the farm could hold it"
        return Verdict(node.name, False, f"too small: {lacks}")
    lacks = _lacks(capacity, node.in_use, wanted)
    if lacks:
        return Verdict(node.name, False, f"full: {lacks}")
    if node.pressed and node.running:
        return Verdict(node.name, False, "held back: it is short of memory")
    if node.reserved:
        why = "has room, kept free for one that has waited longer"
        return Verdict(node.name, False, why)
    return Verdict(node.name, True, "has room")


def _lacks(capacity: Resources, in_use: Resources, wanted: Resources | None) -> str:
    """Return which resources do not suffice: ``cores: 1 of 4 free, 2 wanted``."""
    found = []
    for name in PACKED:
        has, used = getattr(capacity, name), getattr(in_use, name) or 0
        wants = None if wanted is None else getattr(wanted, name)
        # Cores are added up in floating point here, in millionths where it counts.
        if has is None or wants is None or wants <= has - used + 1e-6:
            continue
        whole, free, asked = (_amount(name, amount) for amount in (has, has - used, wants))
        left = f"{whole} in all" if not used else f"{free} of {whole} free"
        found.append(f"{name}: {left}, {asked} wanted")
    return "; ".join(found)


def _amount(name: str, amount: float) -> str:
    return format_bytes(amount) if name in ("memory", "disk") else f"{max(0.0, amount):.3g}"
