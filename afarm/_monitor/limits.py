"""When to look at a call next, and which limit it exceeds. Pure: time is an argument.

A process that grows by 2 GB/s between looks overshoots by 8 MB at 5 ms and by 101 MB at
50 ms (measured), so the pause shrinks where a limit is near.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..resources import Resources, Usage

SLOW = 0.05
FAST = 0.005

# From this share of the memory limit on, looks are close together.
_NEAR = 0.7

# How often the scratch directory is walked through: where it is limited, and else.
DISK_LIMITED = 0.5
DISK_UNLIMITED = 5.0


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was exceeded: which, and by what."""

    resource: str
    amount: float


def exceeded(limits: Resources, usage: Usage, *, certain_memory: int) -> Breach | None:
    """Return the first limit that is exceeded, or ``None``.

    Args:
        limits: The allocation.
        usage: What was measured.
        certain_memory: What the call surely took. `Usage.memory`, the upper end of its
            bracket, may hold pages of the template and of earlier calls: no call is
            ended for those.
    """
    measured = (
        ("memory", limits.memory, certain_memory),
        ("wall_time", limits.wall_time, usage.wall_time),
        ("cpu_time", limits.cpu_time, usage.cpu_time),
        ("disk", limits.disk, usage.disk),
        ("processes", limits.processes, usage.processes),
    )
    for resource, limit, amount in measured:
        if limit is not None and amount > limit:
            return Breach(resource, amount)
    return None


def pause(limits: Resources, elapsed: float, memory: int, grown: int, since: float) -> float:
    """Return the seconds until the next look at a call.

    Args:
        limits: Its allocation.
        elapsed: Seconds since it began.
        memory: Bytes it surely has now.
        grown: Bytes by which that grew since the last look.
        since: Seconds between the two looks.
    """
    wait = SLOW
    if limits.memory is not None:
        room = limits.memory - memory
        # At the present rate, the limit is reached within three of these pauses.
        if memory > _NEAR * limits.memory:
            wait = FAST
        elif grown > 0 and since > 0:
            wait = min(wait, max(FAST, room / (grown / since) / 3))
    if limits.wall_time is not None:
        wait = min(wait, max(0.0, limits.wall_time - elapsed) + 0.001)
    return wait


def most(a: Usage, b: Usage) -> Usage:
    """Return the peaks of two readings of one call; the times are those of ``b``, the later."""
    return replace(
        b,
        cpu_user=max(a.cpu_user, b.cpu_user),
        cpu_system=max(a.cpu_system, b.cpu_system),
        memory=max(a.memory, b.memory),
        memory_low=max(a.memory_low, b.memory_low),
        memory_resident=max(a.memory_resident, b.memory_resident),
        disk=max(a.disk, b.disk),
        read_bytes=max(a.read_bytes, b.read_bytes),
        write_bytes=max(a.write_bytes, b.write_bytes),
        processes=max(a.processes, b.processes),
        threads=max(a.threads, b.threads),
        start=min(a.start, b.start) or b.start or a.start,
    )
