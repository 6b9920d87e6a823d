"""``afarm cache``: what nodes have cached, asked of each without starting an agent there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._agent.inventory import MARK
from ..errors import NodeError
from ..resources import format_bytes
from ..transport.base import Node
from ..transport.bootstrap import payload_for
from ..transport.hosts import parse_node
from ..words import count, duration

# A cache of a million files is read in seconds; what takes longer hangs.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a cache: see `_agent.inventory.entries`."""

    kind: str
    name: str
    title: str
    bytes: int
    used: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What a node answered.

    Attributes:
        node: Its name.
        problem: Why it did not; empty where it did.
        root: The folder.
        entries: What lies in it, where that was asked.
        removed: How many things were removed.
        kept: How many are in use.
        freed: Bytes on its disk.
    """

    node: str
    problem: str = ""
    root: str = ""
    entries: tuple[Entry, ...] | None = None
    removed: int = 0
    kept: int = 0
    freed: int = 0


class _Collector:
    """Takes what a program on a node prints until it ends; see `transport.base.Receiver`."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def stderr_received(self, data: bytes) -> None:
        """What it prints to standard error is shown with the reason if it fails."""

    def pause_writing(self) -> None:
        """Nothing more is going to be written."""

    def resume_writing(self) -> None:
        """Nothing more is going to be written."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)


async def ask(nodes: Sequence[Any] | None, action: str, *, at_once: int = 8) -> list[Content]:
    """Return what each node has cached, or what was removed there, in the order of the nodes.

    Args:
        nodes: As `afarm.Farm` takes them.
        action: ``list`` or ``clear``.
        at_once: How many are asked at the same time.
    """
    limit = asyncio.Semaphore(at_once)

    async def one(given: Any) -> Content:
        node: Node = parse_node(given) if isinstance(given, str) else given
        async with limit:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await _ask(node, action)
            except TimeoutError:
                return Content(node.name, f"no answer within {PATIENCE:.0f} s")
            except (NodeError, OSError) as exc:
                return Content(node.name, str(exc))

    return list(await asyncio.gather(*(one(node) for node in nodes or ["local"])))


async def _ask(node: Node, action: str) -> Content:
    program = await asyncio.to_thread(payload_for, "afarm._agent.inventory", action, node.scratch)
    collector = _Collector()
    connection = await node.connect(collector, program=program)
    try:
        reason = await collector.ended
    finally:
        connection.abort()
        await connection.wait_closed()
    _, found, answer = bytes(collector.said).partition(MARK.encode())
    if reason is not None or not found:
        return Content(node.name, str(reason or "it ended without an answer"))
    with contextlib.suppress(ValueError, TypeError):
        fields: dict[str, Any] = json.loads(answer)
        if "entries" in fields:
            fields["entries"] = tuple(Entry(**entry) for entry in fields["entries"])
        return Content(node.name, **fields)
    return Content(node.name, f"its answer cannot be understood: {answer[:200]!r}")


def describe(content: Content, now: float) -> str:
    """Return a node's answer for people.

    Args:
        content: The answer.
        now: The time, in seconds since the epoch.
    """
    if content.problem:
        return f"{content.node}: {content.problem}"
    if content.entries is None:
        kept = f"; {count(content.kept, 'thing')} in use stayed" if content.kept else ""
        return (
            f"{content.node}: {content.root}: {count(content.removed, 'thing')} removed,"
            f" {format_bytes(content.freed)} freed{kept}"
        )
    total = format_bytes(sum(entry.bytes for entry in content.entries))
    lines = [f"{content.node}: {content.root}: {total} in {count(len(content.entries), 'thing')}"]
    for entry in sorted(content.entries, key=lambda entry: (entry.kind, -entry.used)):
        used = "in use" if entry.in_use else f"used {duration(max(0.0, now - entry.used))} ago"
        lines.append(
            f"  {entry.kind:<12}{entry.name[:12]}  {format_bytes(entry.bytes):>10}"
            f"  {used:<24}{entry.title}"
        )
    return "\n".join(lines)
