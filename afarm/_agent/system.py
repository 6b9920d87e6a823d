"""What the standard library does not offer of the operating system, and descriptors.

Everything here works on Linux; where a call is missing (another platform, a Python
without ctypes) it does nothing and says so by its return value.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import os
import resource
import signal
import socket
import sys
from collections.abc import MutableMapping
from typing import Any

try:
    import ctypes

    _libc: Any = ctypes.CDLL(None, use_errno=True)
except (ImportError, OSError):  # pragma: no cover - a Python built without libffi
    _libc = None

# Nothing of ours is open above this.
_MOST_OPEN = 4096

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

# Descriptors of ours lie at or above this: the user's code finds the low ones as a
# program finds them that was started by a shell.
FIRST_DESCRIPTOR = 200

# What pipes and sockets hold that bulk passes through; by default 64 and 208 KiB.
_HELD = 1 << 20

# The greatest number of descriptors that one message of ours carries.
_MOST_DESCRIPTORS = 4


def _prctl(option: int, value: int) -> bool:
    if _libc is None or not sys.platform.startswith("linux"):
        return False
    return bool(_libc.prctl(option, value, 0, 0, 0) == 0)


def set_name(name: bytes) -> bool:
    """Set what `ps` and `top` call this process: up to 15 bytes."""
    if _libc is None or not sys.platform.startswith("linux"):
        return False
    return bool(_libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0) == 0)


def become_subreaper() -> bool:
    """Adopt the orphans among this process's descendants, instead of leaving them to init."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sig: signal.Signals, parent: int) -> None:
    """Ask for a signal when the parent dies; exit now if it is dead already.

    Must be called in the main thread, by a process whose parent's forking thread lives
    as long as the parent does.
    """
    _prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os._exit(1)


def put_first(environment: MutableMapping[str, str], folder: str) -> None:
    """Let the programs in a folder be found before all others, in these environment variables."""
    path = environment.get("PATH") or os.defpath
    if path.partition(os.pathsep)[0] != folder:
        environment["PATH"] = os.pathsep.join((folder, path))


def flush_c_streams() -> None:
    """Write out what C code has left in its stdio buffers."""
    if _libc is not None:
        _libc.fflush(None)


def trim_heap() -> None:
    """Give free memory at the top of malloc's heaps back to the kernel."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


class OutOfMemoryScore:
    """How readily the kernel kills this process for memory: 1000 first, -1000 never.

    Children inherit it. An ordinary user may raise the score but not lower it below what it
    was started with; what is refused changes nothing.
    """

    def __init__(self) -> None:
        try:
            self._file = move_high(os.open("/proc/self/oom_score_adj", os.O_WRONLY))
        except OSError:
            self._file = -1

    def set(self, score: int) -> None:
        """Change it: 1 us."""
        with contextlib.suppress(OSError):
            os.pwrite(self._file, str(score).encode(), 0)


@functools.cache
def _first() -> int:
    """Return the lowest descriptor of ours: lower where few are allowed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FIRST_DESCRIPTOR if soft in (-1,) or soft > FIRST_DESCRIPTOR + 56 else 10


def move_high(descriptor: int) -> int:
    """Return a copy of a descriptor at `FIRST_DESCRIPTOR` or above; the old one is closed."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _first())
    os.close(descriptor)
    return high


def widen(descriptor: int) -> None:
    """Let a pipe or a socket hold more, so that bulk passes in few turns of both its ends.

    Nothing changes where the kernel does not allow it: an ordinary user may have only so many
    pages in pipes.
    """
    import stat

    mode = os.fstat(descriptor).st_mode
    with contextlib.suppress(OSError, AttributeError):
        if stat.S_ISFIFO(mode):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _HELD)
        elif stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _HELD)


def move_socket_high(sock: socket.socket) -> socket.socket:
    """Return the same socket at a high descriptor."""
    return socket.socket(fileno=move_high(sock.detach()))


def send_with_descriptors(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send some bytes together with descriptors; the socket must be blocking, or have room."""
    sent = sock.sendmsg(
        [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    )
    if sent < len(data):
        sock.sendall(data[sent:])


def receive_with_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Return what arrived and the descriptors with it; empty bytes at the end of the stream.

    Raises:
        OSError: As ``socket.recvmsg``.
    """
    item = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(_MOST_DESCRIPTORS * item.itemsize))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            item.frombytes(content[: len(content) - len(content) % item.itemsize])
    for descriptor in item:
        os.set_inheritable(descriptor, False)
    return data, list(item)


def close_all_but(*kept: int) -> None:
    """Close every descriptor above 2 but these."""
    # One system call each where the kernel has close_range (Linux 5.9).
    first = 3
    for descriptor in sorted(each for each in kept if each > 2):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(first + 1, _MOST_OPEN))
