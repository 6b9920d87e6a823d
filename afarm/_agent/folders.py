"""Where an agent keeps things on a node, and ending an older agent of the same farm."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from .._monitor.proc import read_stat
from .scratch import remove

# An agent that was asked to end gets so long before it is killed.
_GRACE = 2.0


def cache_folder(stated: str) -> str:
    """Return the folder for caches and scratch directories, made and checked.

    Raises:
        OSError: If it cannot be made, or belongs to somebody else.
    """
    folder = stated or os.environ.get("AFARM_CACHE") or f"/var/tmp/afarm-{os.getuid()}"
    folder = os.path.abspath(os.path.expanduser(folder))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else; state another scratch folder")
    return folder


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
        self.path = os.path.join(self._sessions, f"{name}-{os.getpid()}")
        self._prefix = f"{name}-"
        for folder in (self.calls, self.blobs):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        stat = read_stat(os.getpid())
        with open(os.path.join(self.path, "agent"), "w") as file:
            file.write(f"{os.getpid()} {stat.start if stat is not None else 0}")

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
            elif name.startswith(self._prefix) and name[len(self._prefix) :].isdigit():
                _end_agent(pid, folder, alive)
                ended.append(pid)
                remove(folder)
        return ended

    def remove(self) -> None:
        """Remove the folder and all that lies in it."""
        remove(self.path)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)[:100]


def _agent_of(folder: str) -> int | None:
    """Return the process of the agent whose folder it is, if it is alive."""
    try:
        with open(os.path.join(folder, "agent")) as file:
            pid, start = map(int, file.read().split())
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
