"""Where an agent keeps things on a node, and ending an older agent of the same farm.

Hosts may share the folder (a home on NFS): the number of a process says something on its own
host alone. On others its lock tells whether an agent lives, where the file system has locks;
where it has none, what another host has left stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable

from .._monitor.proc import read_stat
from .leases import lock_if_possible
from .scratch import remove

# An agent that was asked to end gets so long before it is killed.
_GRACE = 2.0

# In place of the number of a process on another host.
_ELSEWHERE = -1


class SessionFolder:
    """The folder of one agent, removed at its end.

    Args:
        cache: The folder of caches.
        farm: The farm's name.
        node: The node's name: of two local nodes of one farm, neither ends the other.

    Raises:
        OSError: If it cannot be made.
    """

    def __init__(self, cache: str, farm: str, node: str) -> None:
        self._sessions = os.path.join(cache, "sessions")
        os.makedirs(self._sessions, mode=0o700, exist_ok=True)
        name = _safe(f"{farm}-{node}")
        self._prefix = f"{name}-"
        self.path = _make(os.path.join(self._sessions, f"{name}-{os.getpid()}"))
        try:
            for folder in (self.calls, self.blobs):
                os.mkdir(folder, 0o700)
            self._lock = _sign(self.path)
        except OSError:
            remove(self.path)
            raise

    @property
    def calls(self) -> str:
        """The folder of scratch directories."""
        return os.path.join(self.path, "calls")

    @property
    def blobs(self) -> str:
        """The folder of large functions and objects."""
        return os.path.join(self.path, "blobs")

    def end_older(self, alive: Callable[[], None]) -> list[int]:
        """End older agents of this farm for this node; remove what dead agents have left.

        Args:
            alive: Called while waiting.

        Returns:
            The numbers of the agents that were ended.
        """
        ended: list[int] = []
        for name in os.listdir(self._sessions):
            folder = os.path.join(self._sessions, name)
            if folder == self.path:
                continue
            pid = _agent_of(folder)
            if pid is None:
                _remove_if_stale(folder)
            elif pid == _ELSEWHERE:
                continue
            elif self._is_older(name):
                _end_agent(pid, folder, alive)
                ended.append(pid)
                remove(folder)
        return ended

    def _is_older(self, name: str) -> bool:
        """Whether a folder's name is that of an agent of this farm for this node."""
        rest = name.removeprefix(self._prefix)
        return rest != name and rest.replace(".", "").isdigit()

    def remove(self) -> None:
        """Remove the folder and all that lies in it."""
        remove(self.path)
        os.close(self._lock)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)[:100]


def _make(path: str) -> str:
    """Make a folder of this name, or of one that begins so; return its path."""
    for count in range(1000):
        folder = path if not count else f"{path}.{count}"
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue  # of a dead agent, or of another host's
        return folder
    raise FileExistsError(errno.EEXIST, "no name is free", path)


def _sign(folder: str) -> int:
    """Write down whose folder it is; return the lock that tells other hosts that we live."""
    stat = read_stat(os.getpid())
    path = os.path.join(folder, "agent")
    file = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        lock_if_possible(file, fcntl.LOCK_EX)
        start = stat.start if stat is not None else 0
        os.write(file, f"{os.getpid()} {start}".encode())
        with open(os.path.join(folder, "host"), "w") as host:
            host.write(_here())
        os.rename(path + ".new", path)  # nobody reads half of it
    except OSError:
        os.close(file)
        raise
    return file


def _here() -> str:
    """Return what tells apart the hosts and containers in which a process has its number."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{os.uname().nodename}:{namespace}"


def _host_of(folder: str) -> str:
    """Return where the agent of a folder runs: here, unless it says otherwise."""
    try:
        with open(os.path.join(folder, "host")) as file:
            return file.read()
    except FileNotFoundError:
        return _here()


def _is_locked(path: str) -> bool:
    """Whether some process holds the lock of a file; also where there are no locks."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _agent_of(folder: str) -> int | None:
    """Return the process of the agent whose folder it is, if it is alive.

    `_ELSEWHERE` is one of another host's.
    """
    path = os.path.join(folder, "agent")
    try:
        with open(path) as file:
            pid, start = map(int, file.read().split())
        if _host_of(folder) != _here():
            return _ELSEWHERE if _is_locked(path) else None
    except (OSError, ValueError):
        return None
    stat = read_stat(pid)
    return pid if stat is not None and stat.start == start and stat.state != "Z" else None


def _remove_if_stale(folder: str) -> None:
    """Remove a folder whose agent is dead; one that is just being made has no file yet."""
    with contextlib.suppress(OSError):
        if (
            os.path.exists(os.path.join(folder, "agent"))
            or time.time() - os.stat(folder).st_mtime > 60
        ):
            remove(folder)


def _end_agent(pid: int, folder: str, alive: Callable[[], None]) -> None:
    for sig, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(OSError):
            os.kill(pid, sig)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if _agent_of(folder) is None:
                return
            alive()
            time.sleep(0.01)
