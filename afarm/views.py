"""Snapshots of a farm for people: its nodes, its counts, its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .display import NodeProgress, Progress
from .errors import describe_resources
from .resources import Resources
from .scheduler import Scheduler
from .tally import Stats


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as it is at one moment.

    Attributes:
        name: Its name in the farm.
        kind: ``"local"``, ``"ssh"``, ``"command"`` ...
        state: ``"connecting"``, ``"up"``, ``"draining"``, ``"lost"`` or ``"set aside"``.
        reason: Why it is not up, or what is special about it.
        capacity: What it has; all ``None`` while it has never been up.
        sources: What sets its ``cores``, ``memory`` and ``gpus``: ``"the machine"``, ``"stated"``,
            ``"SLURM_MEM_PER_NODE"`` ...
        tiers: By what calls are measured and bounded there: ``"process"``, ``"tree"``,
            ``"group (memory)"``, ``"group (pids)"``.
        in_use: What of it is allocated.
        running: Invocations that run on it.
        cache: Where its environments lie; empty where the farm's own interpreter serves.
        round_trip: The least round trip of a message, in seconds, or ``None``.
        load: Cores in use by anyone, as last heard, or ``None``.
        available: Bytes of memory a new process could have, as last heard, or ``None``.
    """

    name: str
    kind: str
    state: str
    reason: str
    capacity: Resources
    in_use: Resources
    running: int
    cache: str
    round_trip: float | None
    load: float | None
    available: int | None
    sources: Mapping[str, str] = field(default_factory=dict)
    tiers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        has = describe_resources(self.capacity)
        return f"<Node {self.name} {self.state}, {has}, {self.running} running>"


def nodes(scheduler: Scheduler) -> tuple[NodeInfo, ...]:
    """Return every node of a farm."""
    found = []
    for view in scheduler.state.nodes():
        link = scheduler.links.get(view.name)
        spec = scheduler.specs.get(view.name)
        beat = link.heartbeat if link is not None else None
        notes = [note for note in link.notes.values() if note] if link is not None else []
        said: Mapping[str, Any] = link.description if link is not None else {}
        cache = "" if link is None or link.node.in_place else str(said.get("cache", ""))
        found.append(
            NodeInfo(
                name=view.name,
                kind=type(spec).__name__.removesuffix("Node").lower() if spec is not None else "",
                state=view.state.value,
                reason=view.reason or "; ".join(notes),
                capacity=view.capacity or Resources(),
                in_use=view.in_use,
                running=view.running,
                cache=cache,
                round_trip=link.round_trip if link is not None else None,
                load=beat.load if beat is not None else None,
                available=beat.available if beat is not None else None,
                sources=dict(said.get("sources", {})),
                tiers=tuple(said.get("tiers", ())),
            )
        )
    return tuple(found)


def stats(scheduler: Scheduler) -> Stats:
    """Return the counts of a farm."""
    running = sum(call.state == "running" for call in scheduler.calls.values())
    tally = scheduler.tally
    has = sum(view.capacity.cores or 0.0 for view in scheduler.state.nodes() if view.capacity)
    used = sum(view.in_use.cores or 0.0 for view in scheduler.state.nodes())
    return Stats(
        waiting=len(scheduler.calls) - running,
        running=running,
        returned=tally.returned,
        failed=tally.failed,
        cancelled=tally.cancelled,
        attempts=sum(tally.attempts.values()),
        lost=tally.attempts["lost"],
        exhausted=sum(n for name, n in tally.attempts.items() if name.startswith("exhausted")),
        evictions=tally.evictions,
        throughput=tally.throughput(scheduler.loop.time()),
        utilisation=used / has if has else 0.0,
        allocation_efficiency=tally.efficiency,
        failed_time=tally.failed_time,
    )


def progress(scheduler: Scheduler) -> Progress:
    """Return what the display shows. Called several times a second: no walk over all calls."""
    tally = scheduler.tally
    views = list(scheduler.state.nodes())
    running = sum(view.running for view in views)
    return Progress(
        waiting=max(0, len(scheduler.calls) - running),
        running=running,
        done=tally.returned,
        failed=tally.failed + tally.cancelled,
        nodes=tuple(
            NodeProgress(
                name=view.name,
                state=view.state.value,
                running=view.running,
                cores_used=view.in_use.cores or 0.0,
                cores=(view.capacity.cores if view.capacity else None) or 0.0,
                memory_used=view.in_use.memory or 0,
                memory=(view.capacity.memory if view.capacity else None) or 0,
            )
            for view in views
        ),
    )


def slots(scheduler: Scheduler) -> int:
    """Return how many invocations of one core the nodes that are up can hold."""
    cores = sum(
        view.capacity.cores or 1.0
        for view in scheduler.state.nodes()
        if view.capacity and view.state.value == "up"
    )
    return max(1, int(cores))
