"""Programs that use a known amount of something: what a monitor is held against.

Each says itself what the truth is. Memory is touched page by page, so that it is resident;
processor time is burnt until the process's own clock has counted it.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import shared_memory

MIB = 1 << 20
HOLD = 0.02

# Kept by the template of the workers that this module is imported in ahead of forks.
_INHERITED: list[bytearray] = []


def touch(
    memory: mmap.mmap | memoryview | bytearray, begin: int = 0, end: int | None = None
) -> None:
    """Write to every page."""
    for at in range(begin, len(memory) if end is None else end, mmap.PAGESIZE):
        memory[at] = 1


def mapped(size: int, hold: float = HOLD) -> None:
    """Have ``size`` bytes of fresh memory for a while, then give them back."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        touch(memory)
        time.sleep(hold)


def allocated(size: int) -> None:
    """Have a plain object of ``size`` bytes for 20 ms."""
    memory = bytearray(size)
    touch(memory)
    time.sleep(HOLD)


def huge_pages(size: int) -> None:
    """Have memory that the kernel may back with huge pages, where it does that."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        touch(memory)
        time.sleep(HOLD)


def in_sequence(size: int, times: int) -> None:
    """Have ``size`` bytes, again and again, never two at once."""
    for _ in range(times):
        mapped(size, 0.002)


def shared(size: int) -> None:
    """Have shared memory, as multiprocessing makes it."""
    memory = shared_memory.SharedMemory(create=True, size=size)
    try:
        assert memory.buf is not None
        touch(memory.buf)
        time.sleep(HOLD)
    finally:
        memory.close()
        memory.unlink()


def mapped_file(size: int) -> None:
    """Read a file of ``size`` bytes through a mapping: page cache, nobody's memory."""
    with open("mapped", "wb") as made:
        made.truncate(size)
    total = 0
    with open("mapped", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            total += memory[at]
        time.sleep(0.1)
    assert total == 0


_CHILD = """
import mmap, sys, time
size, hold = int(sys.argv[1]), float(sys.argv[2])
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, size, mmap.PAGESIZE):
    memory[at] = 1
time.sleep(hold)
"""


def _child(size: int, hold: float) -> subprocess.Popen[bytes]:
    # Without site packages: its own memory is then that of a bare interpreter, some 5 MiB.
    command = [sys.executable, "-I", "-S", "-c", _CHILD, str(size), str(hold)]
    return subprocess.Popen(command)


def in_subprocess(size: int, hold: float = HOLD) -> None:
    """Let a subprocess have ``size`` bytes for a while."""
    assert _child(size, hold).wait() == 0


def in_two_subprocesses(size: int) -> None:
    """Let two subprocesses have ``size`` bytes each, at once."""
    children = [_child(size, 0.3) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]


def in_subprocesses_in_sequence(size: int, times: int) -> None:
    """Let subprocesses have ``size`` bytes each, one after the other."""
    for _ in range(times):
        in_subprocess(size, 0.0)


def here_then_in_subprocess(size: int) -> None:
    """Have ``size`` bytes, give them back, then let a subprocess have as many."""
    mapped(size)
    in_subprocess(size)


def in_forked_child(size: int) -> None:
    """Let a forked child, which shares this process's memory, have ``size`` bytes more."""
    child = os.fork()
    if child == 0:
        try:
            mapped(size)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def in_orphan(size: int) -> None:
    """Let a process that has lost its parent, in a session of its own, have ``size`` bytes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            mapped(size, 0.05)
            os.write(writer, b"x")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"x"


def inherit(size: int) -> None:
    """Make this process have memory that later forks of it inherit."""
    memory = bytearray(size)
    touch(memory)
    _INHERITED.append(memory)


def rewrite_inherited(size: int, fresh: int = 0) -> None:
    """Rewrite inherited memory, and have as much again on top of it as ``fresh``."""
    touch(_INHERITED[0], size)
    if fresh:
        mapped(fresh)


def drop_inherited(fresh: int) -> None:
    """Give inherited memory back, then have ``fresh`` bytes."""
    _INHERITED.clear()
    mapped(fresh)


def burn(seconds: float) -> None:
    """Use so much processor time in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def burn_in_threads(seconds: float, threads: int) -> None:
    """Use so much processor time in each of some threads (which share the interpreter's lock)."""
    running = [threading.Thread(target=burn, args=(seconds,)) for _ in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()


_BURNING = """
import sys, time
end = float(sys.argv[1])  # the start of the interpreter is part of it
while time.process_time() < end:
    sum(range(1000))
"""


def burn_in_subprocesses(seconds: float, processes: int) -> None:
    """Use so much processor time in each of some subprocesses at once."""
    command = [sys.executable, "-I", "-S", "-c", _BURNING, str(seconds)]
    children = [subprocess.Popen(command) for _ in range(processes)]
    assert not any(child.wait() for child in children)


def burn_in_orphan(seconds: float) -> None:
    """Use so much processor time in a process that has lost its parent."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            while time.process_time() < seconds:  # a fork begins at 0
                sum(range(1000))
            os.write(writer, b"x")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"x"


def write(size: int) -> None:
    """Write so many bytes to a file, and let them reach the disk."""
    with open("written", "wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def scratch(size: int) -> None:
    """Have a file of so many bytes in the scratch directory, for as long as a look takes."""
    write(size)
    time.sleep(0.8)
    os.unlink("written")


def processes(count: int) -> None:
    """Have so many processes at once, this one included."""
    children = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(count - 1)]
    time.sleep(0.15)
    for child in children:
        child.communicate()


def threads(count: int) -> None:
    """Have so many threads at once, this one included."""
    done = threading.Event()
    running = [threading.Thread(target=done.wait) for _ in range(count - 1)]
    for each in running:
        each.start()
    time.sleep(0.15)
    done.set()
    for each in running:
        each.join()


@dataclass(frozen=True, slots=True)
class Truth:
    """One program, and what it uses.

    Attributes:
        name: What it does, for people.
        function: The program.
        args: Its arguments.
        memory: Bytes it has at its peak, all its processes together.
        per_process: Bytes that each further process brings along by itself.
        cpu_time: Seconds of processor time.
        written: Bytes written to storage.
        disk: Peak bytes in the scratch directory.
        processes: Processes at once.
        threads: Threads at once.
        inherits: Bytes that its process inherits from its template.
    """

    name: str
    function: Callable[..., None]
    args: Sequence[object]
    memory: int | None = None
    per_process: int = 0
    cpu_time: float | None = None
    written: int | None = None
    disk: int | None = None
    processes: int | None = None
    threads: int | None = None
    inherits: int = 0


MEMORY = (
    Truth("300 MiB, mapped, for 20 ms", mapped, (300 * MIB,), memory=300 * MIB),
    Truth("300 MiB, an object, for 20 ms", allocated, (300 * MIB,), memory=300 * MIB),
    Truth("300 MiB on huge pages", huge_pages, (300 * MIB,), memory=300 * MIB),
    # It starts a process that removes what is left behind.
    Truth("300 MiB of shared memory", shared, (300 * MIB,), 300 * MIB, 5 * MIB),
    Truth("50 times 20 MiB in sequence", in_sequence, (20 * MIB, 50), memory=20 * MIB),
    Truth("a mapped file of 300 MiB", mapped_file, (300 * MIB,), memory=0),
    Truth("300 MiB in a subprocess, for 20 ms", in_subprocess, (300 * MIB,), 300 * MIB, 5 * MIB),
    Truth(
        "150 MiB in each of two subprocesses", in_two_subprocesses, (150 * MIB,),
        300 * MIB, 10 * MIB,
    ),
    Truth(
        "10 times 60 MiB in subprocesses, in sequence", in_subprocesses_in_sequence,
        (60 * MIB, 10), 60 * MIB, 5 * MIB,
    ),
    Truth("200 MiB, then 200 MiB in a subprocess", here_then_in_subprocess, (200 * MIB,),
          200 * MIB, 5 * MIB),
    Truth("300 MiB in a forked child", in_forked_child, (300 * MIB,), memory=300 * MIB),
    Truth("300 MiB in an orphan", in_orphan, (300 * MIB,), memory=300 * MIB),
)  # fmt: skip

PROCESSOR = (
    Truth("1 s of CPU", burn, (1.0,), cpu_time=1.0),
    Truth("0.5 s of CPU in each of 2 threads", burn_in_threads, (0.5, 2), cpu_time=1.0),
    Truth("0.5 s of CPU in each of 2 subprocesses", burn_in_subprocesses, (0.5, 2), cpu_time=1.0),
    Truth("2 s of CPU in an orphan", burn_in_orphan, (2.0,), cpu_time=2.0),
)

OTHERS = (
    Truth("100 MiB written to storage", write, (100 * MIB,), written=100 * MIB),
    Truth("100 MiB in the scratch directory, removed", scratch, (100 * MIB,), disk=100 * MIB),
    Truth("5 processes", processes, (5,), processes=5),
    Truth("9 threads", threads, (9,), threads=9),
)


if __name__ == "__main__":
    _name, _args = json.loads(sys.argv[1])
    globals()[_name](*_args)
