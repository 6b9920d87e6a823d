"""Control groups of our own: where they can be made, and what their limits are to be. Pure.

One group holds all calls of an agent, and below it each slot has one; who is in them does
not change from call to call. `Ceiling` decides what a slot's memory limit is: the kernel
counts page cache, files in ``/dev/shm`` and its own memory towards it as well, so that the
limit of a call cannot simply be written down.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .cgroups import Cgroups, read_number, read_text

_PREFIX = "afarm-"

# Above its limit, what a call may have before the kernel ends it: the watch, which knows what
# is the call's own, comes first. The rest is for what slot and spare come to have while a call
# runs (4 to 7 MB were measured), and for the counters, which each processor runs ahead of
# by 64 pages (``MEMCG_CHARGE_BATCH``) before they are right.
_OVER = 1.05
_SLACK = 8 << 20
_OF_PROCESSOR = 64 * 4096

# What a limit must change by to be written, and the usage to be looked into: at least, and as
# a part of the limit.
_WORTH = 4 << 20
_WORTH_PART = 32

# Of the processes and threads that fit on the machine, calls leave a part to others, and one
# slot leaves a part to the other slots. Who has so few that this matters is left alone.
_LEAVE_OTHERS = 8
_LEAVE_SLOTS = 4
_FEW = 1024

# Threads are allowed for each process that a call may have: libraries start some for each of
# the machine's processors, and may do so several times over.
_THREADS_EACH = 256


class Parent(NamedTuple):
    """A group of one controller, in which others are made.

    Attributes:
        controller: ``memory`` or ``pids``.
        version: 1 or 2.
        folder: Where its files are.
    """

    controller: str
    version: int
    folder: str


class MemoryFiles(NamedTuple):
    """How one version calls the files of the memory controller.

    Attributes:
        limit: What it may have; `unlimited` takes it off.
        usage: What it has, in bytes.
        kills: Holds a line ``oom_kill`` with the number of its processes that were killed.
        anonymous: In ``memory.stat``, what no file is behind, groups below it included.
        cache: In ``memory.stat``, page cache, likewise; and files in ``/dev/shm``.
    """

    limit: str
    unlimited: str
    usage: str
    kills: str
    anonymous: str
    cache: str


MEMORY = {
    1: MemoryFiles(
        "memory.limit_in_bytes", "-1", "memory.usage_in_bytes", "memory.oom_control",
        "total_rss", "total_cache",
    ),
    2: MemoryFiles("memory.max", "max", "memory.current", "memory.events", "anon", "file"),
}  # fmt: skip


def own(cgroups: Cgroups) -> list[Parent]:
    """Return the groups this process is in of the controllers that calls are bounded with.

    Of version 2 only if the group may have the controller at all (``cgroup.controllers``).
    """
    found = []
    for controller in ("memory", "pids"):
        for group in cgroups.of(controller)[:1]:
            controllers = read_text(f"{group.folder}/cgroup.controllers").split()
            if group.version == 1 or controller in controllers:
                found.append(Parent(controller, group.version, group.folder))
    return found


def name(session: str) -> str:
    """Return what the group of all calls of an agent is called.

    Args:
        session: The name of the agent's folder, which ends in the number of its process.
    """
    return _PREFIX + session


def agent_of(name: str) -> int | None:
    """Return the process of the agent that made a group of this name; ``None``: no agent did."""
    number = name.removesuffix(AGENT).rpartition("-")[2].partition(".")[0]
    return int(number) if name.startswith(_PREFIX) and number.isdecimal() else None


# The group of the agent itself begins with the name of that of its calls. Version 2 lets no
# process stay in a group whose controllers are handed on to those below it.
AGENT = "_agent"


def most_threads(cgroups: Cgroups, root: str = "") -> int:
    """Return how many processes and threads all calls of this agent may have; 0: any number."""
    bounds = [
        read_number(f"{root}/proc/sys/kernel/pid_max"),
        read_number(f"{root}/proc/sys/kernel/threads-max"),
        *(read_number(f"{group.folder}/pids.max") for group in cgroups.of("pids")),
    ]
    known = [int(bound) for bound in bounds if bound is not None]
    if not known or min(known) < _FEW:
        return 0
    return min(known) - min(known) // _LEAVE_OTHERS


def threads_of_slot(most: int, processes: Iterable[int | None] = ()) -> int:
    """Return how many processes and threads a slot may have; 0: any number.

    Args:
        most: What `most_threads` said.
        processes: What is stated for the calls that it runs.
    """
    share = most - most // _LEAVE_SLOTS
    stated = list(processes)
    if not share or not stated or None in stated:
        return share
    # The supervisor, its spare and a worker that is about to go are there, too.
    return min(share, _THREADS_EACH * (sum(filter(None, stated)) + 1))


class Ceiling:
    """What the limit of a slot's memory is to be. Pure; bytes throughout.

    A little more than the calls may have, on top of what is not held against them: page cache,
    which is not taken from them for longer than to the next look; what was there before;
    pages of the template that they rewrite, which the kernel counts as theirs. The watch
    knows at each look what they surely took, so that what else there is counts as that.

    Args:
        processors: How many there are.

    Attributes:
        hard: What the calls that run may have; 0: they have no limit that ends them.
        held: Anonymous memory that is not held against them; ``None``: not known.
        limit: What was decided last; 0: none.
    """

    def __init__(self, processors: int) -> None:
        self._slack = _SLACK + _OF_PROCESSOR * processors
        self.hard = self.limit = 0
        self.held: int | None = None
        self._looked_at: int | None = None

    @property
    def _worth(self) -> int:
        return max(_WORTH, self.hard // _WORTH_PART)

    def is_stale(self, usage: int) -> bool:
        """Whether so much has come or gone that `follow` is to be asked."""
        return self._looked_at is None or abs(usage - self._looked_at) >= self._worth

    def follow(self, usage: int, anonymous: int, certain: int) -> int | None:
        """Return a limit to be written, or ``None`` if the present one will do.

        Args:
            usage: What is counted towards the limit.
            anonymous: The part of that which no file is behind; read after it.
            certain: What the calls surely took, at the last look.
        """
        self._looked_at = usage
        others = max((self.held or 0) + usage - anonymous, usage - certain)
        limit = others + int(self.hard * _OVER) + self._slack
        # A limit below what is there would make the writer wait until the kernel has taken
        # it back. The call is far over its own, and the watch is about to find that.
        if limit <= usage or abs(limit - self.limit) < self._worth:
            return None
        self.limit = limit
        return limit

    def take_off(self) -> None:
        """Have no limit."""
        self.hard = self.limit = 0
        self.held = self._looked_at = None


def ceiling_of_all(capacity: int, cache: int, slots: int) -> int:
    """Return the limit of all calls together, in bytes.

    Args:
        capacity: What the farm may use of the node.
        cache: Page cache of theirs, which is not taken from them.
        slots: How many there are: each holds something of its own.
    """
    return int(capacity * _OVER) + cache + _SLACK * (1 + 2 * slots)


def field(text: bytes, name: bytes) -> int:
    """Return the number behind a name at the beginning of a line; 0 if there is none."""
    _, found, rest = (b"\n" + text).partition(b"\n" + name + b" ")
    number = rest.partition(b"\n")[0].strip() if found else b""
    return int(number) if number.isdigit() else 0
