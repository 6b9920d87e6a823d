"""The page of memory that agent, supervisor and its workers share.

Each worker has a slot of 64-bit words in it, each word written by one side only. The
worker writes what it is doing, so that the supervisor needs no message per call; the
agent writes which calls must not begin.
"""

from __future__ import annotations

import mmap
import os
import tempfile

SIZE = 8192

# A supervisor has a few workers at a time: one that runs, one that hands over a large
# result, and a spare. A slot is used again after this many workers.
_SLOTS = 32
_WORDS = SIZE // 8 // _SLOTS

# Written by the worker.
BEGUN = 0  # number of the last call it began
STARTED = 1  # when, nanoseconds of the monotonic clock
ENDED = 2  # number of the last call whose function is over
RESIDENT = 3  # bytes resident when the present call began
USER = 4  # nanoseconds of CPU in user mode it had used by then, with its children's
CLEAN = 5  # number of the last call that left no process and no thread
ANONYMOUS = 6  # of the resident bytes, those that no file is behind
SPAWNING = 7  # number of the last call that was about to start a process
TRACE = 10  # number of the last call whose processes are to be traced
SYSTEM = 18  # nanoseconds of CPU in the kernel, as USER
# Written by the supervisor.
SETTLED = 11  # number of the last call that has started processes, and after which it has looked
TRACED = 12  # number of the last call whose processes are traced, or cannot be
WATCHED = 13  # number of the call that the four next are about; 0 while they change
HIGH_WATER = 14  # bytes: the highest mark that was seen
FILE_LOW = 15  # bytes of mapped files when it was reached: at least
FILE_HIGH = 16  # and at most
FILE_LAST = 17  # bytes of mapped files at the last look
# Written by the agent.
WITHDRAWN_FROM = 8  # calls from this number
WITHDRAWN_TO = 9  # up to this one must not begin; 0: none

# After so many seconds a store of one processor is seen by all others, by far.
VISIBLE = 0.002


def create() -> int:
    """Return the descriptor of a new page."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("afarm", os.MFD_CLOEXEC)
    else:
        descriptor, name = tempfile.mkstemp(prefix="afarm")
        os.unlink(name)
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Page:
    """One mapping of a page. Closes the descriptor it is made from.

    A forked process keeps the mapping of the one it was forked from.
    """

    __slots__ = ("_map", "_words")

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")

    def slot(self, worker: int) -> memoryview:
        """Return the words of a worker; no two workers alive have the same."""
        at = worker % _SLOTS * _WORDS
        return self._words[at : at + _WORDS]

    def clear(self, worker: int) -> None:
        """Make a slot ready for a new worker."""
        slot = self.slot(worker)
        for at in range(_WORDS):
            slot[at] = 0
