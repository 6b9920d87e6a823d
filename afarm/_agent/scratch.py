"""The empty folder that a call starts in, and removing what it has put there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time


class Scratch:
    """The scratch directory of the calls of one worker.

    A folder that a call has left empty serves the next one: looking into it costs 5 us,
    removing and making one 30 us on an ordinary disk. Its time of change, for 2 us, is
    a proof only where each change has one of its own (since Linux 6.13, on most file
    systems); elsewhere the kernel's clock for files ticks every few milliseconds.

    Args:
        folder: The folder that holds the scratch directories.
        name: Of this worker's.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, name)
        self._made = False
        self._precise: bool | None = None  # whether each change has a time of its own
        self._changed = -1  # when the folder, which was empty then

    def enter(self) -> None:
        """Make this process start a call in an empty folder."""
        if not self._made:
            os.mkdir(self._path, 0o700)
            self._made = True
        os.chdir(self._path)

    def leave(self) -> int:
        """Make the folder good for another call; return the bytes that the last one left in it."""
        try:
            changed = os.stat(self._path).st_ctime_ns
            if self._precise and changed == self._changed:
                return 0
            if not os.listdir(self._path):
                if self._precise is None:
                    self._precise = has_precise_times(self._path)
                    changed = os.stat(self._path).st_ctime_ns
                self._changed = changed
                return 0
        except OSError:  # the call has removed its own folder, or locked itself out
            pass
        open_up(self._path)
        size = disk_usage(self._path)
        os.chdir(self._folder)
        remove(self._path)
        self._made = False
        return size


def lay(name: str, path: str) -> None:
    """Let a file be found under a name in the current folder: a link to what all calls read."""
    folder = os.path.dirname(name)
    if folder:
        os.makedirs(folder, exist_ok=True)
    os.symlink(path, name)


def has_precise_times(folder: str, rounds: int = 10) -> bool:
    """Return whether each change of a folder gets a time of change that no other has.

    Tried out, within less than a tick of the kernel's clock.
    """
    probe = os.path.join(folder, ".afarm")
    times = set()
    for _ in range(rounds):
        os.mkdir(probe)
        times.add(os.stat(folder).st_ctime_ns)
        os.rmdir(probe)
        times.add(os.stat(folder).st_ctime_ns)
    return len(times) == 2 * rounds


class DiskWalk:
    """A walk through a folder that can be interrupted: it adds up blocks on the disk.

    Hard links count once; what disappears meanwhile does not count. At most ``most``
    entries are looked at.

    Attributes:
        total: Bytes found so far.
        spent: Seconds that the walk has taken so far.
    """

    def __init__(self, path: str, most: int = 1_000_000) -> None:
        self._pending = [path]
        self._most = most
        self._seen: set[tuple[int, int]] = set()
        self.total = 0
        self.spent = 0.0

    def go_on(self, budget: float) -> bool:
        """Walk for so many seconds, or for one folder more; return whether it is at its end."""
        began = time.monotonic()
        until = began + budget
        while self._pending and self._most > 0:
            self._add(self._pending.pop())
            if time.monotonic() >= until:
                break
        self.spent += time.monotonic() - began
        return not self._pending or self._most <= 0

    def _add(self, folder: str) -> None:
        try:
            entries = os.scandir(folder)
        except OSError:
            return
        with entries:
            for entry in entries:
                self._most -= 1
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        self._pending.append(entry.path)
                        continue
                    if found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in self._seen:
                            continue
                        self._seen.add((found.st_dev, found.st_ino))
                    self.total += found.st_blocks * 512


def disk_usage(path: str) -> int:
    """Return the bytes that lie below a folder, as blocks on the disk; see `DiskWalk`."""
    walk = DiskWalk(path)
    walk.go_on(float("inf"))
    return walk.total


def removed_empty(path: str) -> bool:
    """Remove a folder if it is empty; return whether it was."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def remove(path: str) -> None:
    """Remove a folder and everything below it, also where its modes forbid that."""
    if removed_empty(path) or not os.path.lexists(path):
        return
    open_up(path)
    shutil.rmtree(path, ignore_errors=True)


def open_up(path: str) -> None:
    """Give the owner all rights in a folder and in those below it."""
    pending = [path]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            if os.stat(folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(folder, 0o700)
            with os.scandir(folder) as entries:
                pending += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
