"""What a worker that serves many calls puts right between them, and when it must go.

Restored: working directory, environment variables, signal handlers and mask, locale,
umask, standard streams, and the global random generators (seeded afresh). A worker goes
when threads, children, descriptors or memory are left.
"""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]  # its C half, without enumerations
import contextlib
import os
import random
import signal
import sys
from typing import Any

# A worker that holds more anonymous memory than this on top of what it was born with,
# after a collection, goes: the next call would be charged for it.
LEFT_MEMORY = 64 << 20


_generator: Any = random._inst
_seed = super(random.Random, _generator).seed


def seed_generators() -> None:
    """Seed the global random generators of random, numpy and torch, where they are loaded.

    An integer as seed costs 4 us (random) and 10 us (numpy.random), without one it is 12
    and 118: they read more entropy than their state can tell apart.
    """
    entropy = int.from_bytes(os.urandom(16), "little")
    # What random.seed does with an integer, after 2 us of looking what it was given.
    _seed(entropy)
    _generator.gauss_next = None
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(entropy & 0xFFFFFFFF)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(entropy >> 64)


def _field(text: bytes, key: bytes) -> bytes:
    at = text.find(key)
    return text[at : text.find(b"\n", at + 1)] if at >= 0 else b""


def _masks(text: bytes) -> tuple[bytes, bytes]:
    """Return what a status says of signals (blocked, ignored, caught), and the umask."""
    at = text.find(b"\nSigBlk:")
    return text[at : text.find(b"\nCapInh:", at)], _field(text, b"\nUmask:")


class State:
    """The state of this process as calls are to find it.

    Args:
        status: The text of ``/proc/self/status`` now.
        streams: The descriptors that 1 and 2 are copies of.
    """

    def __init__(self, status: bytes, streams: tuple[int, int]) -> None:
        self._environment = dict(_environment())
        self._masks = _masks(status)
        self._threads = _field(status, b"\nThreads:")
        self._umask = int(_field(status, b"\nUmask:")[7:] or b"22", 8)
        self._handlers: dict[signal.Signals, Any] = {}
        for number in signal.valid_signals():
            with contextlib.suppress(ValueError):
                self._handlers[signal.Signals(number)] = signal.getsignal(number)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._python_handled = [(n, h) for n, h in self._handlers.items() if callable(h)]
        self._locale = _locale.setlocale(_locale.LC_ALL, None)
        self.streams = streams
        self._files = (sys.stdin, sys.stdout, sys.stderr, sys.displayhook, sys.excepthook)
        self._inodes = [os.fstat(fd).st_ino for fd in (0, *streams)]
        self._free = _lowest_free()
        self._path = list(sys.path)
        self.recursion = sys.getrecursionlimit()
        self._in_order = status  # with which nothing was to be put back

    def left(self, status: bytes) -> str:
        """Return what the last call has left, so that this process must go, or ``""``.

        Args:
            status: The text of ``/proc/self/status`` after the call.
        """
        known = status is self._in_order
        if not known and _field(status, b"\nThreads:") != self._threads:
            return "threads are left"
        self._restore_streams()
        if _lowest_free() != self._free:
            return "descriptors are left"
        return ""

    def restore(self, status: bytes) -> None:
        """Put back what the last call has changed.

        Args:
            status: The text of ``/proc/self/status`` after the call.
        """
        if _environment() != self._environment:
            for name in [n for n in os.environ if os.fsencode(n) not in self._environment]:
                del os.environ[name]
            for key, value in self._environment.items():
                os.environ[os.fsdecode(key)] = os.fsdecode(value)
        if status is not self._in_order:
            masks = _masks(status)
            if masks != self._masks:
                self._restore_masks(masks)
            else:
                self._in_order = status
        for number, handler in self._python_handled:
            # signal.getsignal first tries to make an enumeration's member of it: 5 us.
            if _signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if _locale.setlocale(_locale.LC_ALL, None) != self._locale:
            _locale.setlocale(_locale.LC_ALL, self._locale)
        if sys.path != self._path:
            sys.path[:] = self._path
        if sys.getrecursionlimit() != self.recursion:
            sys.setrecursionlimit(self.recursion)

    def _restore_streams(self) -> None:
        sys.stdin, sys.stdout, sys.stderr, sys.displayhook, sys.excepthook = self._files
        for descriptor, inode in enumerate(self._inodes):
            try:
                right = os.fstat(descriptor).st_ino == inode
            except OSError:
                right = False
            if not right and descriptor:
                os.dup2(self.streams[descriptor - 1], descriptor)
            elif not right:
                null = os.open(os.devnull, os.O_RDONLY)
                if null != 0:
                    os.dup2(null, 0)
                    os.close(null)

    def _restore_masks(self, masks: tuple[bytes, bytes]) -> None:
        if masks[1] != self._masks[1]:
            os.umask(self._umask)
        if masks[0] != self._masks[0]:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            for number, handler in self._handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _environment() -> dict[bytes, bytes]:
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    return data


def _lowest_free() -> int:
    """Return the descriptor that would be given next: a leak takes it."""
    with contextlib.suppress(OSError):
        descriptor = os.dup(0)
        os.close(descriptor)
        return descriptor
    return -1
