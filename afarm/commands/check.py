"""``afarm check``: what each node is and has, found out by running functions on it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import afarm

from ..errors import FarmError, describe_resources
from ..resources import format_bytes

# Enough for a median that one slow round trip does not move.
ROUND_TRIPS = 7
# The upload grows until it takes this long: short ones measure the round trip only.
UPLOAD_SECONDS = 0.5
UPLOAD_SIZES = (1 << 20, 8 << 20, 64 << 20)
# A node that keeps being lost while a call is on it would be tried for ever.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one node.

    Attributes:
        name: The node, as it was given.
        problem: Why it cannot be used; empty where it can.
        facts: What it is and has, in words, by what is said.
    """

    name: str
    problem: str
    facts: dict[str, str]


async def check(nodes: Sequence[Any] | None, *, at_once: int = 8) -> list[Finding]:
    """Open each node alone and return what was found, in the order of the nodes."""
    limit = asyncio.Semaphore(at_once)

    async def one(node: Any) -> Finding:
        async with limit:
            return await check_node(node)

    return list(await asyncio.gather(*(one(node) for node in nodes or ["local"])))


async def check_node(node: Any) -> Finding:
    """Open one node, run a few calls on it, and return what was found."""
    name = node if isinstance(node, str) else str(getattr(node, "name", node))
    began = time.monotonic()
    farm = afarm.Farm([node], progress=False)
    try:
        async with asyncio.timeout(PATIENCE), farm:
            facts = await _measure(farm, time.monotonic() - began)
    except TimeoutError:
        reasons = "; ".join(seen.reason for seen in farm.nodes if seen.reason)
        return Finding(name, f"no answer within {PATIENCE:.0f} s {reasons}".rstrip(), {})
    except (FarmError, OSError) as exc:
        return Finding(name, str(exc), {})
    return Finding(name, "", facts)


async def _measure(farm: afarm.Farm, opened: float) -> dict[str, str]:
    quick = farm.options(isolation="reuse", cores=1, category="afarm check")
    python = await quick.submit(_make_describe())
    trips = []
    nothing = _make_length()
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        await quick.submit(nothing, b"")
        trips.append(time.monotonic() - began)
    [node] = farm.nodes
    sources = {name: why for name, why in node.sources.items() if why != "the machine"}
    facts = {
        "reached in": f"{opened:.2f} s",
        "host key": "not needed" if node.kind != "ssh" else "known and unchanged",
        "Python": python,
        "capacity": describe_resources(node.capacity, sources),
        "monitor": ", ".join(node.tiers),
        "cache": node.cache or "none: the farm's own interpreter serves",
        "round trip": f"{statistics.median(trips) * 1e3:.2f} ms",
        "upload": f"{format_bytes(await _upload_rate(quick, nothing))}/s",
    }
    if node.cache:
        size = await quick.submit(_make_size(), node.cache)
        facts["cache"] = f"{node.cache} ({format_bytes(size)})"
    return facts


async def _upload_rate(farm: afarm.Farm, length: Callable[[bytes], int]) -> float:
    """Return bytes per second of an argument that grows until it takes a while."""
    rate = 0.0
    for size in UPLOAD_SIZES:
        argument = bytes(size)
        began = time.monotonic()
        await farm.submit(length, argument)
        took = time.monotonic() - began
        rate = size / took
        if took > UPLOAD_SECONDS:
            break
    return rate


# These run on the node. They are made by functions, so that they travel by value: the
# node has no use for this package.


def _make_describe() -> Callable[[], str]:
    def describe() -> str:
        import platform
        import sys

        # Of a shipped environment, which is a virtual one: the interpreter below it.
        found = getattr(sys, "_base_executable", None) or sys.executable
        return (
            f"{platform.python_implementation()} {platform.python_version()}"
            f" ({found}) on {platform.machine()}, {' '.join(platform.libc_ver())}"
        )

    return describe


def _make_length() -> Callable[[bytes], int]:
    def length(argument: bytes) -> int:
        return len(argument)

    return length


def _make_size() -> Callable[[str], int]:
    def size(folder: str) -> int:
        """Return the bytes on disk below a folder; hard links count once."""
        import os

        seen: dict[tuple[int, int], int] = {}
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    found = os.lstat(os.path.join(place, name))
                except FileNotFoundError:
                    continue  # another farm's file, gone meanwhile
                seen[found.st_dev, found.st_ino] = found.st_blocks * 512
        return sum(seen.values())

    return size


def describe_findings(findings: Sequence[Finding]) -> str:
    """Return what was found, one paragraph for each node."""
    paragraphs = []
    for finding in findings:
        if finding.problem:
            lines = [f"{finding.name}: cannot be used", *finding.problem.splitlines()]
        else:
            facts = (f"{what:<12}{fact}" for what, fact in finding.facts.items())
            lines = [f"{finding.name}: ready", *facts]
        paragraphs.append("\n  ".join(lines))
    return "\n".join(paragraphs)
