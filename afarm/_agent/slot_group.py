"""The supervisor's side of control groups: a group for its slot, behind the watch.

A supervisor enters its groups once, before it forks its first worker. What calls cost stays
the same: 1 us to read how much memory there is, 1 us to write another limit, 11 us to find
out how much of it is page cache, where it has moved (Linux 6.18, version 1).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

from .._monitor import groups
from .._monitor.groups import MEMORY, Parent
from .._monitor.proc import oom_kills, read_status
from .grouping import Hierarchy, slot_name
from .restore import LEFT_MEMORY
from .system import move_high

# Bytes to read of a file with a few numbers, and of one with many.
_SHORT, _LONG = 512, 16384


class Call(NamedTuple):
    """What a group is to know of a call that runs.

    Attributes:
        memory: The bytes above which it is ended; ``None``: it is not.
        processes: How many processes it may have; ``None``: any number.
        certain: The bytes that it surely had at the last look.
    """

    memory: int | None
    processes: int | None
    certain: int


class SlotGroup:
    """The groups of one slot, or none where they cannot be had.

    Args:
        parents: The groups of all calls.
        number: Of the slot.
        threads: How many processes and threads all calls may have; 0: any number.
        hierarchy: What is done to groups.

    Attributes:
        entered: Whether this process is in a group of its slot.
    """

    def __init__(
        self, parents: Sequence[Parent], number: int, threads: int,
        hierarchy: Hierarchy | None = None,
    ) -> None:  # fmt: skip
        self._hierarchy = hierarchy or Hierarchy()
        self._memory: _Memory | None = None
        self._pids = ""
        self._most_threads = threads
        self._threads = 0
        entered = {
            folder: self._enter(f"{folder}/{slot_name(number)}")
            for folder in dict.fromkeys(parent.folder for parent in parents)
        }
        for parent in parents:
            if not entered[parent.folder]:
                continue
            folder = f"{parent.folder}/{slot_name(number)}"
            if parent.controller == "pids":
                self._pids = folder
                self._bound_threads(groups.threads_of_slot(threads))
            else:
                with contextlib.suppress(OSError):
                    self._memory = _Memory(folder, parent.version)
        self.entered = any(entered.values())
        self._kills = self._count_kills()

    def _enter(self, folder: str) -> bool:
        try:
            self._hierarchy.make(folder)
            self._hierarchy.write(folder, "cgroup.procs", "0")
        except OSError:
            with contextlib.suppress(OSError):
                self._hierarchy.remove(folder)
            return False
        return True

    def begin(self, calls: Sequence[Call], *, first: bool, reuse: bool) -> None:
        """Let the limits be those of the calls that run from now on.

        Args:
            calls: All of them.
            first: Whether none of them has begun, or only just, so that the memory that is
                there is no call's.
            reuse: Whether earlier calls of the same process may have left some.
        """
        processes = [call.processes for call in calls]
        self._bound_threads(groups.threads_of_slot(self._most_threads, processes))
        if self._memory is not None:
            try:
                self._memory.begin(calls, first, LEFT_MEMORY if reuse else 0)
            except (OSError, ValueError):
                self._give_up()

    def look(self, calls: Sequence[Call]) -> None:
        """Let the limit follow what the slot has come to have besides the calls' own."""
        if self._memory is not None:
            try:
                self._memory.look(calls)
            except (OSError, ValueError):
                self._give_up()

    def has_killed(self, exit: int | None = None) -> bool:
        """Whether the kernel has killed a process here for memory since this was asked last.

        Also of a process that the worker has started, if its call has a limit. Without a group
        it is known of the whole machine alone.

        Args:
            exit: How the worker ended, if it has.
        """
        armed = self._memory is not None and self._memory.armed
        if not armed and exit != -signal.SIGKILL:
            return False
        before, self._kills = self._kills, self._count_kills()
        return self._kills > before

    def _count_kills(self) -> int:
        if self._memory is not None:
            try:
                return self._memory.kills()
            except OSError:
                self._memory = None
        return oom_kills()

    def _give_up(self) -> None:
        """Do without a group whose files are gone, or no longer ours."""
        self._memory = None
        self._kills = oom_kills()

    def _bound_threads(self, most: int) -> None:
        if self._pids and most != self._threads:
            self._threads = most
            with contextlib.suppress(OSError):
                self._hierarchy.write(self._pids, "pids.max", str(most or "max"))


class _Memory:
    """The memory controller's files of a slot's group.

    Raises:
        OSError: As does every method, if they cannot be opened, read or written.
        ValueError: If a file holds nothing.
    """

    def __init__(self, folder: str, version: int) -> None:
        names = MEMORY[version]
        self._unlimited = names.unlimited
        self._anonymous = names.anonymous.encode()
        self._limit = _open(folder, names.limit, os.O_WRONLY)
        self._usage = _open(folder, names.usage)
        self._kills = _open(folder, names.kills)
        self._stat = _open(folder, "memory.stat")
        self._ceiling = groups.Ceiling(os.cpu_count() or 1)

    @property
    def armed(self) -> bool:
        """Whether there is a limit."""
        return self._ceiling.limit > 0

    def begin(self, calls: Sequence[Call], first: bool, left: int) -> None:
        ceiling = self._ceiling
        memory = [call.memory for call in calls]
        hard = 0 if None in memory else sum(filter(None, memory))
        if not hard:
            if ceiling.limit:
                self._write(self._unlimited)
            ceiling.take_off()
            return
        usage = self._read_usage()
        if hard == ceiling.hard and not ceiling.is_stale(usage):
            return
        anonymous = self._read_anonymous()
        if first or ceiling.held is None:
            # A worker may rewrite all that it shares with this process.
            own = read_status(os.getpid())
            ceiling.held = anonymous + left + (own.anonymous if own is not None else 0)
        ceiling.hard = hard
        self._follow(usage, anonymous, calls)

    def look(self, calls: Sequence[Call]) -> None:
        if self._ceiling.hard:
            usage = self._read_usage()
            if self._ceiling.is_stale(usage):
                self._follow(usage, self._read_anonymous(), calls)

    def kills(self) -> int:
        return groups.field(os.pread(self._kills, _SHORT, 0), b"oom_kill")

    def _follow(self, usage: int, anonymous: int, calls: Sequence[Call]) -> None:
        limit = self._ceiling.follow(usage, anonymous, sum(call.certain for call in calls))
        if limit is not None:
            self._write(str(limit))

    def _read_usage(self) -> int:
        return int(os.pread(self._usage, _SHORT, 0))

    def _read_anonymous(self) -> int:
        return groups.field(os.pread(self._stat, _LONG, 0), self._anonymous)

    def _write(self, value: str) -> None:
        os.pwrite(self._limit, f"{value}\n".encode(), 0)


def _open(folder: str, name: str, flags: int = os.O_RDONLY) -> int:
    return move_high(os.open(f"{folder}/{name}", flags | os.O_CLOEXEC))
