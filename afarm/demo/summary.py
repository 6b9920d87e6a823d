"""What a run used, summed up by category and by node. Pure: from attempts to tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from ..resources import Resources, Usage, format_bytes


class Attempt(Protocol):
    """One try of an invocation, as ``Invocation.attempts`` has it."""

    @property
    def node(self) -> str: ...
    @property
    def allocation(self) -> Resources: ...
    @property
    def usage(self) -> Usage | None: ...


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt that was measured, and the call and category it belongs to."""

    call: int
    category: str
    node: str
    allocation: Resources
    usage: Usage

    @property
    def end(self) -> float:
        """When it ended, by its node's clock."""
        return self.usage.start + self.usage.wall_time


def measured(call: int, category: str, attempts: Iterable[Attempt]) -> list[Tried]:
    """Return a call's attempts that a node measured: those that were lost with it are not."""
    return [
        Tried(call, category, attempt.node, attempt.allocation, attempt.usage)
        for attempt in attempts
        if attempt.usage is not None and attempt.usage.start > 0
    ]


def peak(tried: Sequence[Tried], amount: Callable[[Tried], float]) -> float:
    """Return the largest sum of ``amount`` over attempts that ran at the same time."""
    changes = [(one.usage.start, amount(one)) for one in tried]
    changes += [(one.end, -amount(one)) for one in tried]
    total = largest = 0.0
    # At one instant what ends makes room first for what starts.
    for _, change in sorted(changes):
        total += change
        largest = max(largest, total)
    return largest


def mean(tried: Sequence[Tried], amount: Callable[[Tried], float]) -> float:
    """Return the average over time of ``amount``, from the first start to the last end."""
    if not tried:
        return 0.0
    span = max(one.end for one in tried) - min(one.usage.start for one in tried)
    if span <= 0:
        return 0.0
    return sum(amount(one) * one.usage.wall_time for one in tried) / span


def category_rows(tried: Sequence[Tried]) -> list[list[str]]:
    """Return a row for each category, in the order of their first attempts."""
    by_category: dict[str, list[Tried]] = defaultdict(list)
    for one in tried:
        by_category[one.category].append(one)
    return [_category_row(name, ours) for name, ours in by_category.items()]


def _category_row(name: str, tried: Sequence[Tried]) -> list[str]:
    walls = [one.usage.wall_time for one in tried]
    used = [one.usage.memory for one in tried]
    granted = [one.allocation.memory for one in tried if one.allocation.memory is not None]
    calls = len({one.call for one in tried})
    return [
        name,
        str(calls),
        str(len(tried) - calls),
        f"{sum(walls):.1f} s",
        f"{median(walls):.2f} s",
        f"{sum(one.usage.cpu_time for one in tried):.1f} s",
        format_bytes(median(used)),
        format_bytes(max(used)),
        format_bytes(median(granted)) if granted else "-",
        format_bytes(max(granted)) if granted else "-",
        f"{peak(tried, lambda _: 1):.0f}",
    ]


def node_rows(tried: Sequence[Tried], capacities: Mapping[str, Resources]) -> list[list[str]]:
    """Return a row for each node: how much of it was allocated, and how much was used."""
    by_node: dict[str, list[Tried]] = {name: [] for name in capacities}
    for one in tried:
        by_node.setdefault(one.node, []).append(one)
    return [
        _node_row(name, ours, capacities.get(name, Resources())) for name, ours in by_node.items()
    ]


def _node_row(name: str, tried: Sequence[Tried], capacity: Resources) -> list[str]:
    return [
        name,
        str(len(tried)),
        "-" if capacity.cores is None else f"{capacity.cores:g}",
        _part(mean(tried, _cores), peak(tried, _cores), capacity.cores),
        _part(mean(tried, _cores_used), None, capacity.cores),
        "-" if capacity.memory is None else format_bytes(capacity.memory),
        _part(mean(tried, _memory), peak(tried, _memory), capacity.memory),
        _part(mean(tried, _memory_used), peak(tried, _memory_used), capacity.memory),
    ]


def _cores(one: Tried) -> float:
    return 1.0 if one.allocation.cores is None else one.allocation.cores


def _cores_used(one: Tried) -> float:
    return one.usage.cores


def _memory(one: Tried) -> float:
    return float(one.allocation.memory or 0)


def _memory_used(one: Tried) -> float:
    return float(one.usage.memory)


def _part(average: float, largest: float | None, whole: float | None) -> str:
    """Return ``"81 % (100 %)"``: the average and, in parentheses, the peak."""
    if not whole:
        return "-"
    shown = _percent(average / whole)
    return shown if largest is None else f"{shown} ({_percent(largest / whole)})"


def _percent(part: float) -> str:
    # On a large node a few percent are many gigabytes.
    return f"{100 * part:.1f} %" if part < 0.1 else f"{100 * part:.0f} %"


CATEGORY_HEADS = (
    "category",
    "calls",
    "retried",
    "wall time",
    "median",
    "CPU",
    "memory median",
    "max",
    "allocated median",
    "max",
    "at once",
)
NODE_HEADS = (
    "node",
    "attempts",
    "cores",
    "allocated (peak)",
    "busy",
    "memory",
    "allocated (peak)",
    "used (peaks added)",
)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in plain text: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
