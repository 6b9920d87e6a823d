"""The processes below a process: finding them, and ending them all. Linux only.

A kernel built with CONFIG_PROC_CHILDREN lists a process's children in one file; else
every process is asked for its parent, and those found to be strangers are not asked
again while they live.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping

from .proc import newest, processes, read, read_stat
from .release import release

# After so long without a look, a number may belong to another process: with the least
# range of numbers that Linux allows by default (32,768) none comes round so soon.
_STALE = 1.0

# Between two looks at what is dying; a process leaves in well under a millisecond,
# unless it has gigabytes to give back.
_PAUSE = 0.0005


class ProcessTree:
    """Finds the descendants of a process.

    Args:
        root: Its number.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._listed = os.path.exists(f"/proc/{root}/task/{root}/children")
        self._strangers: dict[int, int] = {}
        self._looked = 0.0
        self._found: dict[tuple[int, ...], tuple[bytes, set[int]]] = {}

    def below(self, roots: Collection[int]) -> set[int]:
        """Return every descendant of these processes, without themselves.

        They must be the tree's root or among its descendants.
        """
        if self._listed:
            return _listed_below(roots)
        return _reach(self._look(), roots)

    def descendants(self, pid: int) -> set[int]:
        """Return every descendant of one process, and perhaps some that are gone meanwhile.

        It costs little while no process has come anywhere on this machine: a tree grows by
        new processes alone. (Who is adopted from within it was in it already.) Else it takes
        8 us for each thread where children are listed.
        """
        known = self._found.get((pid,))
        now = newest()  # before the look: what comes later has a later number
        if known is None or not now or known[0] != now:
            known = (now, self.below((pid,)))
            self._found = {(pid,): known}
        return known[1]

    def children(self) -> set[int]:
        """Return the direct children of the root, zombies included."""
        if self._listed:
            return set(_listed_children(self._root))
        return set(self._look().get(self._root, ()))

    def _look(self) -> dict[int, list[int]]:
        """Return the children of each process; only who is new or ours is asked."""
        now = time.monotonic()
        strangers = self._strangers if now - self._looked < _STALE else {}
        self._looked = now
        parents: dict[int, int] = {}
        for pid in processes():
            parent = strangers.get(pid)
            if parent is None:
                stat = read_stat(pid)
                if stat is None:
                    continue
                parent = stat.parent
            parents[pid] = parent
        children: dict[int, list[int]] = {}
        for pid, parent in parents.items():
            children.setdefault(parent, []).append(pid)
        # Ours may lose their parent and be adopted; a stranger cannot become ours.
        ours = _reach(children, (self._root,))
        self._strangers = {pid: parent for pid, parent in parents.items() if pid not in ours}
        return children


def _reach(children: Mapping[int, Collection[int]], roots: Collection[int]) -> set[int]:
    found: set[int] = set()
    pending = list(roots)
    while pending:
        for pid in children.get(pending.pop(), ()):
            if pid not in found:
                found.add(pid)
                pending.append(pid)
    return found - set(roots)


def _listed_children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        found.extend(map(int, read(pid, f"task/{thread}/children").split()))
    return found


def _listed_below(roots: Collection[int]) -> set[int]:
    found: set[int] = set()
    pending = list(roots)
    while pending:
        for pid in _listed_children(pending.pop()):
            if pid not in found:
                found.add(pid)
                pending.append(pid)
    return found - set(roots)


def alive(pids: Collection[int]) -> dict[int, int]:
    """Return those that still run, and when each started.

    A zombie holds nothing, and waits for its parent alone.
    """
    found = {}
    for pid in pids:
        stat = read_stat(pid)
        # A leader that has ended while its threads run on looks like a zombie.
        if stat is not None and (stat.state not in "ZX" or stat.threads > 1):
            found[pid] = stat.start
    return found


def send(pid: int, sig: signal.Signals) -> None:
    """Send a signal to a process; one that is gone already is no error."""
    with contextlib.suppress(OSError):
        os.kill(pid, sig)


def end(members: Callable[[], set[int]], reap: Callable[[], None]) -> None:
    """Kill processes until ``members`` finds none, however they multiply.

    They are stopped first, until a look shows no new one, so that none can fork while
    its relatives die; then killed, all at once. Their memory is taken back without waiting
    until each of them gets its turn to do so.

    Args:
        members: Returns those that are to go; zombies among them do not count.
        reap: Waits for the children that have ended, without blocking.
    """
    stopped: dict[int, int] = {}
    while True:
        new = alive(members() - stopped.keys())
        if not new:
            break
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new
    pause = _PAUSE
    while True:
        for pid in stopped:
            send(pid, signal.SIGKILL)
        for pid in stopped:
            release(pid)
        reap()
        # Who loses its parent in this moment may stand in neither one's list of children,
        # so those that were killed are asked for too; a number may be another process's by now.
        still = {pid: start for pid, start in alive(stopped).items() if stopped[pid] == start}
        stopped = alive(members()) | still
        if not stopped:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
