"""A program that grows at a known rate and notes when it had how much.

Run as a function of a call, or as a program: ``python growing.py NOTES LIMIT RATE MOST``. It
imports the standard library alone, so that it starts in an interpreter without packages.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

STEP = 1 << 20

# How long it grows before it reaches the limit; what is below that it takes at once (s).
RUN_UP = 0.5

# Who is not stopped ends by itself after so long (s).
PATIENCE = 15.0

_NOTE = struct.Struct("qqq")
_NOTES = 1 << 20


class Note(NamedTuple):
    """What the program says of itself: its process, when (ns, monotonic), bytes it then had."""

    pid: int
    time: int
    size: int


def make_notes(path: str) -> None:
    """Make the file that a program notes its size in."""
    with open(path, "wb") as file:
        file.truncate(_NOTES)


def read_notes(path: str) -> Iterator[Note]:
    """Yield what a program has noted."""
    with open(path, "rb") as file:
        while note := file.read(_NOTE.size):
            if len(note) < _NOTE.size:
                return
            pid, moment, size = _NOTE.unpack(note)
            if not pid:
                return
            yield Note(pid, moment, size)


def last_size(path: str) -> int:
    """Return the bytes that a program has noted last; 0: none yet."""
    return max((note.size for note in read_notes(path)), default=0)


def grow(path: str, limit: int, rate: float, most: int, base: int = 0) -> None:
    """Take memory, page by page, until somebody ends this.

    Args:
        path: The file for its notes.
        limit: Bytes at which it is to be ended.
        rate: Bytes per second; 0: one allocation, touched as fast as it can be.
        most: Bytes at which it stops growing by itself.
        base: Bytes that it has already.
    """
    block = bytes(range(256)) * (STEP // 256)
    memory = mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), _NOTES) as notes:
        at = size = 0
        started = time.monotonic()
        head = max(0, limit - int(rate * RUN_UP)) if rate else 0
        while size < most - STEP:
            ahead = size - head - (time.monotonic() - started) * rate
            if rate and size >= head and ahead > 0:
                time.sleep(min(0.002, ahead / rate))
                continue
            if size < head:
                started = time.monotonic()
            memory[size : size + STEP] = block
            size += STEP
            _NOTE.pack_into(notes, at, os.getpid(), time.monotonic_ns(), base + size)
            at += _NOTE.size
        time.sleep(PATIENCE)


def grow_in_subprocess(path: str, limit: int, rate: float, most: int) -> None:
    """Let a subprocess take memory."""
    subprocess.run(command(path, limit, rate, most), check=True)


def command(path: str, limit: int, rate: float, most: int) -> list[str]:
    """Return the command of such a program."""
    return [sys.executable, "-I", "-S", __file__, path, str(limit), str(rate), str(most)]


def _anonymous() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * mmap.PAGESIZE


if __name__ == "__main__":
    grow(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), _anonymous())
