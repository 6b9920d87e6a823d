"""When to look at a call next, and which limit it exceeds. Pure: time is an argument.

A process that grows by 2 GB/s between looks overshoots by 8 MB at 5 ms and by 101 MB at
50 ms (measured), so the pause shrinks where a limit is near.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..resources import Resources, Source, Usage

SLOW = 0.05
FAST = 0.005

# While there are child processes: polling every 10 ms lost 1 to 3 % of short-lived ones,
# every 100 ms a fifth (measured).
WITH_CHILDREN = 0.015

# From this share of the memory limit on, looks at a call that moves are close together.
_NEAR = 0.7

# Where nothing moves. From one moment to the next it may begin to: one thread touches up to
# 1.4 GB/s of small pages here, 6.7 GB/s of huge ones (2 MiB), and no call gets over its limit
# unseen in so long as it takes at this rate.
QUIET = 0.5
_FASTEST = 8e9

# Of calls that took so many seconds more is told than their peaks: how they got there.
LONG = 1.0

# How often the scratch directory is walked through, and for which part of the time at most.
DISK_EVERY = 0.5
DISK_SHARE = 0.01


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


def pause(
    limits: Resources,
    elapsed: float,
    memory: int,
    grown: int,
    since: float,
    *,
    quiet: bool = False,
    threads: int = 1,
) -> float:
    """Return the seconds until the next look at a call.

    Args:
        limits: Its allocation.
        elapsed: Seconds since it began.
        memory: Bytes it surely has now.
        grown: Bytes by which that grew since the last look.
        since: Seconds between the two looks.
        quiet: Whether it has touched no page, and used no processor, for a while.
        threads: How many it has, that may all begin to touch pages.
    """
    # How soon it can get over these, once it moves, is not known.
    others = (limits.cpu_time, limits.disk, limits.processes)
    wait = QUIET if quiet and others == (None, None, None) else SLOW
    if limits.memory is not None:
        room = limits.memory - memory
        # At the present rate, the limit is reached within three of these pauses.
        if quiet:
            reached = max(FAST, room / _FASTEST)
            wait = min(wait, max(min(reached, SLOW), reached / max(1, threads)))
        elif memory > _NEAR * limits.memory:
            wait = FAST
        elif grown > 0 and since > 0:
            wait = min(wait, max(FAST, room / (grown / since) / 3))
    if limits.wall_time is not None:
        wait = min(wait, max(0.0, limits.wall_time - elapsed) + 0.001)
    return wait


def next_look(now: float, wait: float) -> float:
    """Return when to look again at the latest after a wait.

    Long waits end at the same moments in all supervisors: one then finds in the processor's
    caches what the other has just used, and the agent wakes up once for all of them.
    """
    if wait <= SLOW:
        return now + wait
    step = QUIET
    while step > wait:
        step /= 2
    return now + step - now % step


def most(a: Usage, b: Usage) -> Usage:
    """Return the peaks of two readings of one call; the times are those of ``b``, the later."""
    # User and system of one reading: where they come from differs in how they are divided.
    longer = a if a.cpu_time > b.cpu_time else b
    return replace(
        b,
        cpu_user=longer.cpu_user,
        cpu_system=longer.cpu_system,
        memory=max(a.memory, b.memory),
        memory_low=max(a.memory_low, b.memory_low),
        memory_resident=max(a.memory_resident, b.memory_resident),
        disk=max(a.disk, b.disk),
        read_bytes=max(a.read_bytes, b.read_bytes),
        write_bytes=max(a.write_bytes, b.write_bytes),
        processes=max(a.processes, b.processes),
        threads=max(a.threads, b.threads),
        cores_peak=max(a.cores_peak, b.cores_peak),
        sources=a.sources | b.sources,
        start=min(a.start, b.start) or b.start or a.start,
    )


def together(own: Usage, seen: Usage, orphans: float) -> Usage:
    """Return one usage from what a process measured itself and what was seen of its tree.

    Args:
        own: What it measured, children that it waited for included.
        seen: What was seen from outside.
        orphans: Seconds of CPU of descendants that it did not wait for.
    """
    usage = most(seen, replace(own, cpu_user=own.cpu_user + orphans))
    # What it may have rewritten of inherited pages, the looks from outside do not know of.
    memory = max(own.memory, seen.memory + own.memory - own.memory_low)
    sources = usage.sources
    if own.processes > 1 and not sources & (Source.TRACE | Source.TREE):
        # No look met its children: what is known of them is that none was larger than this.
        sources |= Source.UNTRACED
    return replace(usage, memory=memory, sources=int(sources))
