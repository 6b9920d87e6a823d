"""What the kernel knows of a process, read from /proc. Linux only.

Sizes are in bytes, times in seconds. Figures in comments: one core of the reference
machine, Linux 6.18.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Status(NamedTuple):
    """Memory and threads of a process (``/proc/PID/status``).

    Attributes:
        high_water: Most bytes that were resident since the process began, or since the
            mark was reset.
        resident: Bytes resident now.
        anonymous: Of these, memory of its own or inherited by a fork: no file is behind it.
        shared: Of these, shared memory (also tmpfs files that are mapped).
        threads: Threads alive.
    """

    high_water: int
    resident: int
    anonymous: int
    shared: int
    threads: int

    @property
    def file_backed(self) -> int:
        """Bytes of mapped files that are resident: the kernel takes them back when it must."""
        return max(0, self.resident - self.anonymous - self.shared)


# One search is 4 times as fast as five. The order of the lines is the kernel's, since 4.5.
_STATUS = re.compile(
    rb"\nVmHWM:\s*(\d+) kB\nVmRSS:\s*(\d+) kB\nRssAnon:\s*(\d+) kB\nRssFile:\s*\d+ kB"
    rb"\nRssShmem:\s*(\d+) kB\n(?:.*\n)*?Threads:\s*(\d+)\n"
)

_NO_STATUS = Status(0, 0, 0, 0, 1)


def _number(text: bytes, key: bytes) -> int:
    at = text.find(key)
    if at < 0:
        return 0
    at += len(key)
    end = text.find(b"\n", at)
    return int(text[at : end - 3 if text.endswith(b" kB", at, end) else end])


def parse_status(text: bytes) -> Status:
    """Return the status out of the text of ``/proc/PID/status``; zeros for a zombie."""
    found = _STATUS.search(text)
    if found is None:
        return _NO_STATUS
    high_water, resident, anonymous, shared, threads = map(int, found.groups())
    return Status(high_water << 10, resident << 10, anonymous << 10, shared << 10, threads)


def read_status(pid: int) -> Status | None:
    """Return the status of a process, or ``None`` if it is gone or a zombie."""
    text = read(pid, "status")
    return parse_status(text) if b"\nVmHWM:" in text else None


def read(pid: int | str, name: str) -> bytes:
    """Return one file of a process; empty if it is gone or may not be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 8192)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Stat:
    """Parent, state and processor time of a process (``/proc/PID/stat``).

    Attributes:
        state: One letter: ``R`` running, ``S`` sleeping, ``T`` stopped, ``Z`` zombie...
        parent: Its parent's number.
        user: Seconds in user mode, with those of the children it has waited for.
        system: Seconds in the kernel, likewise.
        threads: Threads alive.
        alone: Seconds of its own, user and system, without those of any child.
        start: When it started, in ticks since boot: with its number, which process it is.
        name: What it is called: the first 15 bytes.
        image: Where its code and its stack begin: a forked child's are its parent's until it
            executes another program. Zeros where that may not be read.
    """

    state: str
    parent: int
    user: float
    system: float
    threads: int
    alone: float
    start: int
    name: bytes
    image: tuple[int, int]


def read_stat(pid: int) -> Stat | None:
    """Return the stat of a process, or ``None`` if there is none of this number."""
    text = read(pid, "stat")
    # The name, in parentheses, may itself hold anything.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 26:
        return None
    return Stat(
        fields[0].decode(),
        int(fields[1]),
        (int(fields[11]) + int(fields[13])) * TICK,
        (int(fields[12]) + int(fields[14])) * TICK,
        int(fields[17]),
        (int(fields[11]) + int(fields[12])) * TICK,
        int(fields[19]),
        text[text.find(b"(") + 1 : text.rfind(b")")],
        (int(fields[23]), int(fields[25])),
    )


def read_io(pid: int) -> tuple[int, int]:
    """Return the bytes a process has read from, and written towards, storage; 0 if unknown."""
    return parse_io(read(pid, "io"))


def parse_io(text: bytes) -> tuple[int, int]:
    """Return bytes read and written out of the text of ``/proc/PID/io``."""
    return _number(text, b"\nread_bytes:"), _number(text, b"\nwrite_bytes:")


def private_memory(pid: int | str) -> int:
    """Return a process's share of anonymous and shared memory (``smaps_rollup``), or -1.

    A page that several processes map counts in each for its part. Costs 3 to 11 ms for
    0.3 to 1 GB, so it is asked only where the cheap figures leave a doubt.
    """
    text = read(pid, "smaps_rollup")
    if b"\nPss_Anon:" not in text:
        return -1
    return (_number(text, b"\nPss_Anon:") + _number(text, b"\nPss_Shmem:")) << 10


class Quietness(NamedTuple):
    """What a process has done, or rather not done, since it was asked last.

    Attributes:
        quiet: Whether it has touched no page, started and lost no thread and no child.
        idle: Whether it has used no processor time either, to 10 ms.
        children: How many its first thread has, zombies included.
        single: Whether it has no other thread.
    """

    quiet: bool
    idle: bool
    children: int
    single: bool


_MOVED = Quietness(False, False, 0, True)


class Observed:
    """One process whose memory is read again and again: its files stay open.

    Args:
        pid: Its number. What is read is of this process, also when the number is used again.
    """

    __slots__ = ("_children", "_clear", "_stat", "_status", "_touched", "_used", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status = self._clear = self._children = self._stat = -1
        self._touched: tuple[bytes, ...] = ()
        self._used: list[bytes] = []

    def read(self) -> Status | None:
        """Return its status; ``None`` if it is gone or a zombie."""
        if self._status < 0:
            self._status = _open(self.pid, "status", os.O_RDONLY)
            if self._status < 0:
                return None
        try:
            text = os.pread(self._status, 8192, 0)
        except OSError:  # gone
            return None
        found = _STATUS.search(text)
        if found is None:
            return None
        high_water, resident, anonymous, shared, threads = map(int, found.groups())
        return Status(high_water << 10, resident << 10, anonymous << 10, shared << 10, threads)

    def is_alone(self, threads: int) -> bool:
        """Return whether it surely has no children: 3 us, where the kernel lists them.

        Args:
            threads: How many it has: only of a single one is this known so cheaply.
        """
        if threads != 1:
            return False
        if self._children < 0:
            self._children = _open(self.pid, f"task/{self.pid}/children", os.O_RDONLY)
            if self._children < 0:
                return False
        try:
            return not os.pread(self._children, 16, 0)
        except OSError:  # gone
            return False

    def quietness(self) -> Quietness:
        """Return what it has done since it was asked last: 8 us, where `read` takes 15.

        Who asks before each reading misses nothing that comes between the two.
        """
        if self._stat < 0:
            self._stat = _open(self.pid, "stat", os.O_RDONLY)
            if self._children < 0:
                self._children = _open(self.pid, f"task/{self.pid}/children", os.O_RDONLY)
        try:
            text = os.pread(self._stat, 1024, 0)
            children = os.pread(self._children, 4096, 0)
        except OSError:  # gone, or the kernel does not list children
            return _MOVED
        # The name, in parentheses, may itself hold anything.
        fields = text[text.rfind(b")") + 2 :].split(b" ", 22)
        if len(fields) < 23:
            return _MOVED
        # Page faults of both kinds, threads, virtual and resident size.
        touched = (fields[7], fields[9], fields[17], fields[20], fields[21], children)
        used = fields[11:15]
        found = Quietness(
            touched == self._touched,
            used == self._used,
            children.count(b" "),
            fields[17] == b"1",
        )
        self._touched, self._used = touched, used
        return found

    def reset_mark(self) -> bool:
        """Let its high-water mark begin anew with what is resident now."""
        if self._clear < 0:
            self._clear = _open(self.pid, "clear_refs", os.O_WRONLY)
            if self._clear < 0:
                return False
        try:
            os.write(self._clear, b"5")
        except OSError:  # gone, or the kernel does not let us
            return False
        return True

    def close(self) -> None:
        """Close its files."""
        for descriptor in (self._status, self._clear, self._children, self._stat):
            if descriptor >= 0:
                os.close(descriptor)
        self._status = self._clear = self._children = self._stat = -1


def _open(pid: int, name: str, flags: int) -> int:
    try:
        return os.open(f"/proc/{pid}/{name}", flags | os.O_CLOEXEC)
    except OSError:
        return -1


def newest() -> bytes:
    """Return the number that was given last to a new process or thread (``/proc/loadavg``).

    While it stays the same, no process has come. Empty where it cannot be read.
    """
    try:
        with open("/proc/loadavg", "rb") as file:
            return file.read().rpartition(b" ")[2]
    except OSError:
        return b""


def processes() -> list[int]:
    """Return the numbers of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def oom_kills() -> int:
    """Return how many processes the kernel has killed for memory since it booted; 0 if unknown."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return _number(b"\n" + file.read(), b"\noom_kill ")
    except OSError:
        return 0
