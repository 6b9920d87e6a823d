"""What one call uses, measured by the process that runs it. Linux only.

The high-water mark of resident memory is reset before the call and read after it, so
that it is the kernel's own peak and no sample; begin and finish cost 9 us together on
the reference machine.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable
from typing import NamedTuple

from ..resources import Source, Usage
from .proc import PAGE, Status, parse_io, parse_status, private_memory, read

# Asking the kernel what is shared with the template costs 11 ms/GB (measured): only where
# as much is open, and for so small a part of the call's time.
_WORTH_ASKING = 2 << 20
_ASKING = 11e-12
_SHARE_OF_TIME = 0.05

_PROCESS = int(Source.PROCESS)


class Seen(NamedTuple):
    """What was seen of the call from outside, while it ran.

    Attributes:
        high_water: Bytes: the highest mark of resident memory.
        file_low: Bytes of mapped files when it was reached: at least.
        file_high: And at most.
        file_last: Bytes of mapped files at the last look.
    """

    high_water: int
    file_low: int
    file_high: int
    file_last: int


class Finding(NamedTuple):
    """What the meter found out about one call.

    Attributes:
        usage: Everything but disk.
        wrote: Whether the process wrote anything anywhere: it may have printed.
        had_children: Whether there are, or were, processes that it started.
        text: ``/proc/self/status`` at the end, for who wants more of it; the same object as
            after the last call where nothing in it has changed.
        status: The same, parsed.
    """

    usage: Usage
    wrote: bool
    had_children: bool
    text: bytes
    status: Status


def _written(text: bytes) -> int:
    """Return the bytes written anywhere, to files, pipes and terminals (``wchar``), or -1."""
    at = text.find(b"wchar: ")
    return int(text[at + 7 : text.find(b"\n", at)]) if at >= 0 else -1


def _storage(text: bytes) -> bytes:
    """Return the lines about what moved from and to storage."""
    return text[text.find(b"\nread_bytes:") :]


# What a process has read and written when it is forked.
_NO_IO = b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\n"

# What follows in a status changes with every call: how often the process was waited for.
_CHANGING = b"\nvoluntary_ctxt_switches"


class Meter:
    """Measures the calls of this process, one after the other.

    To be made in the process that is measured, after its fork.

    Args:
        move: Puts a descriptor where the call does not find it.
    """

    def __init__(self, move: Callable[[int], int]) -> None:
        self._move = move
        self._opened = False
        self._status = self._statm = self._io = self._clear = -1
        resident, anonymous = self._memory()
        self._marked = True
        # Anonymous memory of the template, mapped here since the fork: a call takes of
        # it only what it writes to, and pays a fault for each page.
        self._born_with = anonymous
        self.resident = resident
        self.anonymous = anonymous
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._io_text = _NO_IO
        self._wrote_ourselves = 0
        self._start = 0.0
        # The last status, and whether the one before it was the same: where calls leave
        # everything as it is, most of what is to be read is known.
        self._text = b""
        self._stable = b"?"
        self._last: Status
        self._steady = False
        self._faults = -1  # when the last call had ended

    def _memory(self) -> tuple[int, int]:
        """Return resident and anonymous bytes, now."""
        fields = self._read(self._statm, "statm").split()
        if len(fields) < 3:
            return 0, 0
        resident = int(fields[1])
        return resident * PAGE, (resident - int(fields[2])) * PAGE

    def _read(self, descriptor: int, name: str) -> bytes:
        return os.pread(descriptor, 4096, 0) if descriptor >= 0 else read("self", name)

    def begin(self, *, again: bool) -> None:
        """Note that a call begins.

        Args:
            again: Whether others may follow. The only call of a process that was just
                forked needs no reset: its marks and counts began with the fork.
        """
        self._start = time.time()
        usage = self._usage = resource.getrusage(resource.RUSAGE_SELF)
        if not again:
            return
        if self._steady and usage.ru_minflt == self._faults:
            # Nothing came into memory since the last call ended, which had left as much as
            # the one before it: what was read for that one holds for this one.
            if self._clear >= 0:
                self._wrote_ourselves = os.write(self._clear, b"5")
            return
        if not self._opened:
            self._opened = True
            self._status = _open("/proc/self/status", os.O_RDONLY, self._move)
            self._statm = _open("/proc/self/statm", os.O_RDONLY, self._move)
            self._io = _open("/proc/self/io", os.O_RDONLY, self._move)
            self._clear = _open("/proc/self/clear_refs", os.O_WRONLY, self._move)
        self._marked = self._clear >= 0
        if self._marked:
            os.write(self._clear, b"5")
        self.resident, self.anonymous = self._memory()
        self._io_text = self._read(self._io, "io")
        self._wrote_ourselves = 0

    def finish(
        self, wall_time: float, exit: int | None = None, seen: Seen | None = None
    ) -> Finding:
        """Return what was used since `begin`.

        Args:
            wall_time: Seconds that the call took.
            exit: Its exit code, if it asked to exit.
            seen: What was seen from outside, if anybody looked.
        """
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        io = self._read(self._io, "io")
        text = self._read(self._status, "status")
        self._steady = text.startswith(self._stable)
        if self._steady:
            text, status = self._text, self._last
        else:
            status = self._last = parse_status(text)
            self._text, self._stable = text, text[: text.find(_CHANGING)] or b"?"
        self._faults = own.ru_minflt
        read = written = 0
        wrote = not io or _written(io) - _written(self._io_text) != self._wrote_ourselves
        # Reading this changes the counts of reads; of a call that moved nothing, no other.
        if _storage(io) != _storage(self._io_text):
            before, after = parse_io(self._io_text), parse_io(io)
            read, written = after[0] - before[0], after[1] - before[1]
        self._io_text = io
        low, high = self._own_memory(status, own.ru_minflt - self._usage.ru_minflt, seen, wall_time)
        resident = status.high_water
        if seen is not None and seen.high_water > resident:
            resident = seen.high_water
        had_children = children.ru_minflt != self._children.ru_minflt or has_children()
        processes = 1
        if had_children:
            processes = 2
            # The largest of those that were waited for. The figure is inherited over fork and
            # exec, so that it says something only where it is above all that this process had.
            largest = children.ru_maxrss << 10
            if largest > max(resident, self._children.ru_maxrss << 10):
                resident = largest
        user = own.ru_utime - self._usage.ru_utime + children.ru_utime - self._children.ru_utime
        system = own.ru_stime - self._usage.ru_stime + children.ru_stime - self._children.ru_stime
        # Not only while the function ran: what loaded it took processor time as well.
        elapsed = max(wall_time, time.time() - self._start)
        usage = Usage(
            wall_time, user, system, high, low, resident, 0, read, written, processes,
            status.threads, (user + system) / elapsed if elapsed > 0 else 0.0,
            self._sources(status, io), self._start, exit,
        )  # fmt: skip
        # Nothing of this process has children between two calls: the next begins with these.
        self._children = children
        return Finding(usage, wrote, had_children, text, status)

    def _sources(self, status: Status, io: bytes) -> int:
        if status.high_water and io and self._marked:
            return _PROCESS
        return int(
            Source.PROCESS
            | (0 if status.high_water and self._marked else Source.NO_MARK)
            | (0 if io else Source.NO_COUNTERS)
        )

    def _own_memory(
        self, status: Status, faults: int, seen: Seen | None, wall_time: float
    ) -> tuple[int, int]:
        """Return the bracket of what the call itself took at its peak.

        At least what came on top of what was resident when it began, less the files that
        were mapped meanwhile. At most that, and what earlier calls of this process have
        left (it may use freed memory of theirs), and as much of the template's pages as
        it can have written to: each of them costs a fault (since Linux 5.8 of one small
        page, also inside a huge one).
        """
        files_before = self.resident - self.anonymous
        if seen is not None and seen.high_water >= status.high_water:
            mark, files_low, files_high = seen.high_water, seen.file_low, seen.file_high
        else:
            mark = status.high_water
            files_high = status.file_backed
            files_low = files_before if seen is None else seen.file_last
            if files_low > files_high:
                files_low, files_high = files_high, files_low
        grown = mark - self.resident
        low = grown - files_high + files_before if files_high > files_before else grown
        low = max(0, low, status.anonymous + status.shared - self.anonymous)
        left = self.anonymous - self._born_with
        rewritten = min(self._born_with, self.anonymous, faults * PAGE)
        high = grown - files_low + files_before + rewritten + (left if left > 0 else 0)
        high = max(low, min(high, mark - files_low))
        if high - low > _WORTH_ASKING and mark * _ASKING < _SHARE_OF_TIME * wall_time:
            return self._narrowed(status, mark, files_low, low, high)
        return low, high

    def _narrowed(
        self, status: Status, mark: int, files: int, low: int, high: int
    ) -> tuple[int, int]:
        """Return the bracket after asking what is still shared with the template.

        A page that this process once rewrote or dropped is never shared again, so at the
        peak at least as much was as is now. A shared page has two owners or more: the
        process's part of it is half a page at most.
        """
        part = private_memory("self")
        if part < 0:
            return low, high
        everything = status.anonymous + status.shared
        shared = max(0, everything - part)
        high = max(low, min(high, mark - files - shared))
        before = max(0, self.anonymous - self._born_with) + self._usage.ru_minflt * PAGE
        return max(low, min(high, part - shared - before)), high

    @property
    def processor_ns(self) -> tuple[int, int]:
        """Nanoseconds of CPU, user and system, that were used before the call began."""
        own, children = self._usage, self._children
        return (
            int(1e9 * (own.ru_utime + children.ru_utime)),
            int(1e9 * (own.ru_stime + children.ru_stime)),
        )

    def grown(self, status: Status | None = None) -> int:
        """Return the bytes of anonymous memory on top of what this process was born with.

        Args:
            status: Its status, if that was just read.
        """
        anonymous = self._memory()[1] if status is None else status.anonymous
        return max(0, anonymous - self._born_with)


def has_children() -> bool:
    """Return whether this process has a child, alive or not yet waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _open(path: str, flags: int, move: Callable[[int], int]) -> int:
    with contextlib.suppress(OSError):
        return move(os.open(path, flags | os.O_CLOEXEC))
    return -1
