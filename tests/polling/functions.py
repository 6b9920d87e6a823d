"""What polled calls run."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MIB = 1 << 20


def take(mebibytes: int, seconds: float = 0.0) -> None:
    """Hold so much memory for so long."""
    room = mmap.mmap(-1, mebibytes * MIB)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(room)), 1, len(room))
    time.sleep(seconds)


def take_in_subprocesses(count: int, mebibytes: int, seconds: float) -> None:
    """Hold so much memory in each of so many programs, for so long at once."""
    program = f"import time; data = b'x' * ({mebibytes} << 20); print(flush=True); input()"
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) for _ in range(count)
    ]
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    time.sleep(seconds)
    for each in running:
        each.communicate(b"\n")


def take_and_fork(mebibytes: int, count: int, seconds: float) -> None:
    """Hold so much memory, which so many forked children only share, for so long."""
    room = mmap.mmap(-1, mebibytes * MIB, flags=mmap.MAP_PRIVATE)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(room)), 1, len(room))
    children = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            try:
                # Mapped here only once they are read.
                assert room[:: mmap.PAGESIZE]
                time.sleep(60)
            finally:
                os._exit(0)
        children.append(pid)
    time.sleep(seconds)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def burn(seconds: float) -> None:
    """Use so much processor time."""
    while time.process_time() < seconds:
        pass


def burn_in_subprocess(seconds: float) -> None:
    """Use so much processor time in a program that is waited for."""
    program = f"import time\nwhile time.process_time() < {seconds}: pass"
    subprocess.run([sys.executable, "-c", program], check=True)


def write(mebibytes: int, seconds: float) -> None:
    """Leave so large a file in the current directory, for so long at least."""
    with open("file", "wb") as file:
        file.write(b"x" * mebibytes * MIB)
        file.flush()
        os.fsync(file.fileno())
    time.sleep(seconds)


def start_sleepers(count: int, where: str, leave: bool) -> None:
    """Start programs that ignore SIGTERM, write their numbers to a file, and do not end.

    Args:
        count: How many.
        where: The file.
        leave: Whether to lose their parent to init, and return; else wait for ever.
    """
    program = "trap '' TERM; while :; do sleep 1; done"
    if leave and os.fork():
        os.wait()
        time.sleep(0.2)
        return
    pids = [subprocess.Popen(["/bin/sh", "-c", program]).pid for _ in range(count)]
    Path(f"{where}.new").write_text("\n".join(map(str, pids)))
    Path(f"{where}.new").rename(where)
    if leave:
        os._exit(0)
    time.sleep(600)


def leave_session(where: str) -> None:
    """Start a program in a session of its own, write its number to a file, and wait for ever."""
    started = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(f"{where}.new").write_text(str(started.pid))
    Path(f"{where}.new").rename(where)
    time.sleep(600)


def print_and_exit(code: int) -> None:
    """Print to both streams, then leave at once."""
    print("from Python", flush=True)
    os.write(2, b"from C\n")
    os._exit(code)


def die(number: int) -> None:
    """End by a signal."""
    os.kill(os.getpid(), number)


def scratch_and_threads() -> tuple[str, list[str], str | None]:
    """Return the current directory, what is in it, and how many threads OpenMP is to start."""
    return os.getcwd(), os.listdir(), os.environ.get("OMP_NUM_THREADS")


def unpicklable() -> object:
    """Return what cannot come back."""
    return (each for each in "abc")


def platform_and_sum(a: int, b: int) -> tuple[str, int]:
    """Return what Python says it runs on, and a sum."""
    return sys.platform, a + b
