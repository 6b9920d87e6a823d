"""Following a call's processes by ptrace, so that none comes or goes unseen. Linux only.

A process that lives shorter than the time between two looks leaves no trace of its peak:
``ru_maxrss`` is inherited over fork and exec, so that it says the parent's. Who traces a
process is told of every fork, exec and exit, and finds the dying process's high-water mark
still in place. It costs some 0.2 ms for each process or thread that is started, and while it
lasts nobody else can trace (strace, gdb) and setuid programs run without their rights; so it is
done for few calls, and never for one that starts such a program.

The tracer must be one thread, the one that seized: a supervisor has no other. Nothing is
stopped but at these events; signals are passed on as they come.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, Protocol

from .proc import read_stat

try:
    import ctypes

    _libc: Any = ctypes.CDLL(None, use_errno=True)
    _ptrace: Any = _libc.ptrace
    _ptrace.restype = ctypes.c_long
    _ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
except (ImportError, OSError, AttributeError):  # pragma: no cover - without libffi, not Linux
    _ptrace = None

# <sys/ptrace.h>, <linux/ptrace.h>
_CONT = 7
_DETACH = 17
_GETEVENTMSG = 0x4201
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
_FORK, _VFORK, _CLONE, _EXEC, _EXIT, _STOP = 1, 2, 3, 4, 6, 128
_OPTIONS = 1 << _FORK | 1 << _VFORK | 1 << _CLONE | 1 << _EXEC | 1 << _EXIT

# Waits for threads and for children that send no SIGCHLD too (<linux/wait.h>).
WALL = 0x40000000

_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Watcher(Protocol):
    """Who is told of what the traced processes do, while they stand still for it."""

    def born(self, pid: int, *, shares: bool) -> None:
        """A process has come; with ``shares`` it uses its parent's memory, until it executes."""

    def executed(self, pid: int) -> None:
        """A process has begun another program: its memory is empty."""

    def exiting(self, pid: int) -> None:
        """A process is about to end: its memory can be read a last time."""


class Tracer:
    """Traces the processes of one call at a time.

    Args:
        watcher: Who is told.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._traced: set[int] = set()
        self._leaders: set[int] = set()
        self._parents: dict[int, int] = {}  # of those that are ending

    @property
    def active(self) -> bool:
        """Whether anything is traced."""
        return bool(self._traced)

    def seize(self, pid: int) -> bool:
        """Trace a process with its threads, and whatever it starts from now on.

        Returns:
            Whether that is possible here: the kernel, its security modules, a sandbox or
            another tracer may forbid it.
        """
        if _ptrace is None or not sys.platform.startswith("linux"):
            return False
        seized = False
        for thread in _threads(pid):
            if thread not in self._traced and _call(_SEIZE, thread, 0, _OPTIONS):
                self._traced.add(thread)
                seized = True
        if seized:
            self._leaders.add(pid)
        return seized

    def is_own(self, pid: int) -> bool:
        """Return whether a process that has ended, and was waited for, was ours to wait for.

        Who traces a process is told of its end before its parent is. It may have lost its parent
        to us while it ended: then nobody else will be told.
        """
        ours = pid not in self._traced or self._is_nobodys(pid)
        self._forget(pid)
        return ours

    def _is_nobodys(self, pid: int) -> bool:
        parent = self._parents.get(pid)
        if parent is None or parent == os.getpid():
            return parent is not None
        # While that lives it is about to wait for it, or just has. Whoever else adopted it
        # has it still.
        stat = read_stat(parent)
        return (stat is None or stat.state in "ZX") and read_stat(pid) is None

    def _forget(self, pid: int) -> None:
        self._traced.discard(pid)
        self._leaders.discard(pid)
        self._parents.pop(pid, None)

    def stopped(self, pid: int, status: int) -> None:
        """See to a traced process or thread that stands still, and let it go on.

        Args:
            pid: Its number.
            status: What `os.waitpid` said.
        """
        sig, event = status >> 8 & 0xFF, status >> 16
        self._traced.add(pid)
        if event == _STOP:
            if sig in _GROUP_STOPS:
                _call(_LISTEN, pid, 0, 0)
                return
            sig = 0  # the first stop of one that has just come
        elif event:
            sig = 0
            self._see(pid, event)
        _call(_CONT, pid, 0, sig)

    def _see(self, pid: int, event: int) -> None:
        if event in (_FORK, _VFORK, _CLONE):
            child = _event_message(pid)
            # A thread stands among its process's; it may be one that was started by a thread.
            if child and (event != _CLONE or _is_leader(child)):
                self._traced.add(child)
                self._leaders.add(child)
                self._watcher.born(child, shares=event == _VFORK)
        elif event == _EXEC:
            self._leaders.add(pid)
            self._watcher.executed(pid)
        elif event == _EXIT and pid in self._leaders:
            stat = read_stat(pid)
            if stat is not None:
                self._parents[pid] = stat.parent
            self._watcher.exiting(pid)

    def drain(self) -> None:
        """Let everything go on that stands still; for the time when all of it is being killed."""
        for pid in list(self._leaders):
            self._traced.update(_threads(pid))  # also those whose first stop was not heard of yet
        for pid in list(self._traced):
            # The end of a thread is told to nobody but us, and until it is heard of the process
            # has it still. That of a process is for who started it.
            what = os.WSTOPPED | (0 if pid in self._leaders else os.WEXITED)
            try:
                found = os.waitid(os.P_PID, pid, what | os.WNOHANG | WALL)
            except ChildProcessError:
                self._forget(pid)
                continue
            if found is None:
                continue
            if found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
                self._forget(pid)
            else:
                self.stopped(pid, found.si_status << 8)

    def release(self) -> None:
        """Stop tracing what is left: a worker that serves other calls now."""
        for pid in list(self._traced):
            if _call(_INTERRUPT, pid, 0, 0):
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | WALL)
                    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | WALL)
                _call(_DETACH, pid, 0, 0)
            self._forget(pid)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _is_leader(pid: int) -> bool:
    """Return whether this is the number of a process, not of a thread of one."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return b"\nTgid:\t%d\n" % pid in file.read()
    except OSError:
        return False


def _call(request: int, pid: int, address: int, data: int) -> bool:
    return bool(_ptrace(request, pid, address, data) == 0)


def _event_message(pid: int) -> int:
    message = ctypes.c_ulong(0)
    address = ctypes.cast(ctypes.byref(message), ctypes.c_void_p).value or 0
    return int(message.value) if _call(_GETEVENTMSG, pid, 0, address) else 0
