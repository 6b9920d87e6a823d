"""The demonstration: real functions over real input, and what each of them used."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import afarm

from ..resources import Resources
from .plan import CALLS, CATEGORIES, QUICK_CALLS, Call, MissingInput, make_plan
from .summary import (
    CATEGORY_HEADS,
    NODE_HEADS,
    Tried,
    category_rows,
    measured,
    node_rows,
    table,
)

__all__ = ["CALLS", "CATEGORIES", "QUICK_CALLS", "MissingInput", "Run", "report", "run"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the demonstration did.

    Attributes:
        seconds: How long it took, opening the nodes included.
        opened: How long opening the first node took.
        tried: Every attempt that was measured.
        capacities: What each node has, by name.
        failures: What went wrong, one line each.
        results: What the calls returned, in their order; ``None`` for those that failed.
        recalled: How many of them an earlier run had left in the record.
    """

    seconds: float
    opened: float
    tried: Sequence[Tried]
    capacities: dict[str, Resources]
    failures: Sequence[str]
    results: Sequence[Any]
    recalled: int = 0


async def run(
    nodes: Sequence[Any] | None,
    *,
    calls: int,
    quick: bool = False,
    progress: bool | None = True,
    record: str | None = None,
) -> Run:
    """Make the calls of the plan on ``nodes`` and return what they used.

    Args:
        nodes: As `afarm.Farm` takes them; ``None`` for this machine.
        calls: How many calls to make.
        quick: Whether to make each of them small.
        progress: As in ``Farm(progress=)``.
        record: As in ``Farm(record=)``; calls whose result is in it are not made again.

    Raises:
        MissingInput: If a package that ships the input is not installed.
        NoNodesError: If no node could be opened.
        RecordError: If the record cannot be used.
    """
    planned = await asyncio.to_thread(make_plan, calls, quick=quick)
    began = time.monotonic()
    async with afarm.Farm(nodes, progress=progress, record=record) as farm:
        opened = time.monotonic() - began
        memo = True if record is not None else None
        views = {name: farm.options(category=name, memo=memo) for name in CATEGORIES}
        invocations = [
            views[call.category].submit(call.function, *call.arguments) for call in planned
        ]
        results = await asyncio.gather(*invocations, return_exceptions=True)
        capacities = {node.name: node.capacity or Resources() for node in farm.nodes}
    tried = [
        one
        for number, (call, invocation) in enumerate(zip(planned, invocations, strict=True))
        for one in measured(number, call.category, invocation.attempts)
    ]
    return Run(
        time.monotonic() - began,
        opened,
        tried,
        capacities,
        _failures(planned, results),
        [None if isinstance(result, BaseException) else result for result in results],
        sum(
            not invocation.attempts and not isinstance(result, BaseException)
            for invocation, result in zip(invocations, results, strict=True)
        ),
    )


def _failures(planned: Sequence[Call], results: Sequence[Any]) -> list[str]:
    return [
        f"{call.category}: {type(result).__name__}: {result}"
        for call, result in zip(planned, results, strict=True)
        if isinstance(result, BaseException)
    ]


def report(done: Run, stream: TextIO | None = None) -> None:
    """Write the tables of a run to ``stream``, standard output by default."""
    stream = stream or sys.stdout
    answered = len(done.results) - len(done.failures)
    print(
        f"{answered} of {len(done.results)} calls in {done.seconds:.1f} s"
        f" (first node ready after {done.opened:.2f} s)"
        + (f"\n{done.recalled} of them were in the record" if done.recalled else "")
        + "\n",
        file=stream,
    )
    print(table(CATEGORY_HEADS, category_rows(done.tried)), end="\n\n", file=stream)
    print(table(NODE_HEADS, node_rows(done.tried, done.capacities)), file=stream)
    for line in done.failures:
        print(line, file=stream)
