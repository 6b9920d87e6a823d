"""Telling the supervisor that a call is about to start a process, before it does.

The interpreter's audit events say so (PEP 578). A hook cannot be taken away again and costs
0.2 us for every event, so there is one only in workers whose calls are to be traced; what C code
forks, and what `multiprocessing` spawns, is found at the next look instead.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time

from .page import SPAWNING, TRACE, TRACED

_EVENTS = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.spawn"}
)

# They trace others, which the kernel allows one tracer only.
_TRACERS = frozenset({"strace", "ltrace", "gdb", "gdbserver", "lldb", "rr", "perf", "valgrind"})

# The supervisor answers within a millisecond; a call does not wait for one that does not.
_PATIENCE = 0.1
_PAUSE = 50e-6

# Of a command line, so many words are looked at.
_WORDS = 16


class Spawning:
    """The hook of one worker.

    Args:
        slot: Its words in the shared page.
        wake: A descriptor whose reader is the supervisor.
    """

    def __init__(self, slot: memoryview, wake: int) -> None:
        self._slot = slot
        self._wake = wake
        self._pid = os.getpid()
        self._sequence = 0
        self._hooked = False

    def expect(self, sequence: int) -> None:
        """Have the processes of this call traced, from the first one on."""
        self._sequence = sequence
        self._slot[TRACE] = sequence
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[object, ...]) -> None:
        if event not in _EVENTS or not self._sequence or os.getpid() != self._pid:
            return
        sequence, self._sequence = self._sequence, 0
        if self._slot[TRACE] != sequence:
            return  # of an earlier call
        if event in ("subprocess.Popen", "os.posix_spawn") and suffers(args):
            self._slot[TRACE] = 0
            return
        self._slot[SPAWNING] = sequence
        try:
            os.write(self._wake, b"\0")
        except OSError:  # closed by the call, or full: it looks at the page soon
            return
        until = time.monotonic() + _PATIENCE
        while self._slot[TRACED] < sequence and time.monotonic() < until:
            time.sleep(_PAUSE)


def suffers(args: tuple[object, ...]) -> bool:
    """Return whether a command would not work while it is traced.

    Args:
        args: The program and its arguments, as the audit event has them.
    """
    words: list[str] = []
    for each in args[:2]:
        for word in each if isinstance(each, (list, tuple)) else [each]:
            if isinstance(word, (str, bytes, os.PathLike)):
                words += os.fsdecode(word).split()
    return any(_suffers(word) for word in words[:_WORDS])


def _suffers(word: str) -> bool:
    if os.path.basename(word) in _TRACERS:
        return True
    path = word if os.sep in word else shutil.which(word)
    if not path or os.geteuid() == 0:
        return False  # root traces those too
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_ISUID | stat.S_ISGID))
