"""Locks on folders, and folders that come and go as a whole.

The lock of a folder (``flock``) lies on the folder itself and moves with it: exclusive
while it is made or removed, shared while it is in use. It ends with its process. Folders
that are not in their place have hidden names: ``.NAME.PID.WHAT``.

Where a file system has no locks (some NFS), nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

from .build import base_interpreter, remove_tree
from .cache import StoreError

# An interpreter is packed in 15 MB: of one of which nothing has come for so long (s), nothing will.
_FAILED = 3600.0


def open_shared(path: str) -> int | None:
    """Return a shared lock on a folder, or ``None`` if it is not there."""
    while True:
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        # It is locked exclusively for the moment of a rename only.
        lock_if_possible(lock, fcntl.LOCK_SH)
        if is_still(lock, path):
            return lock
        os.close(lock)


def hold_interpreter(root: str) -> None:
    """Keep the interpreter that runs this process, if it lies in the cache, until it ends.

    Raises:
        StoreError: If it was removed since this process was started.
    """
    place, _, _ = base_interpreter().rpartition("/bin/")
    if os.path.dirname(place) != os.path.join(root, "interpreters"):
        return
    if open_shared(place) is None:
        raise StoreError(f"{place} was removed while it was started, to make room; try again")
    os.utime(place)  # who used it last


def make_hidden(path: str) -> tuple[str, int]:
    """Make a hidden folder beside ``path``; return it with the exclusive lock on it."""
    parent, name = os.path.split(path)
    for count in range(1000):
        folder = os.path.join(parent, f".{name}.{os.getpid()}.{count}")
        try:
            os.mkdir(folder, 0o700)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, FileNotFoundError):
            continue  # another thread's, or taken for a leftover before it was locked
        lock_if_possible(lock, fcntl.LOCK_EX)
        if is_still(lock, folder):
            return folder, lock
        os.close(lock)
    raise OSError(errno.EEXIST, "no name is free", parent)


def remove_leftovers(parent: str) -> None:
    """Remove the hidden folders of processes that are gone."""
    for folder in _hidden_in(parent):
        _remove_leftover(folder)


def remove_failed_installs(root: str) -> None:
    """Remove interpreters that have not arrived, and will not.

    The shell that receives one has no locks; while it does, a file at the top grows.
    """
    for folder in _hidden_in(os.path.join(root, "interpreters")):
        changed = 0.0
        for path in (folder, os.path.join(folder, "packed")):
            with contextlib.suppress(FileNotFoundError):
                changed = max(changed, os.stat(path).st_mtime)
        if time.time() - changed > _FAILED:
            _remove_leftover(folder)


def _hidden_in(parent: str) -> list[str]:
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        return []
    return [os.path.join(parent, name) for name in names if name.startswith(".")]


def _remove_leftover(folder: str) -> None:
    lock = _lock_exclusively(folder)
    if lock is not None:
        remove_tree(folder)
        os.close(lock)


def remove_unused(path: str) -> bool:
    """Remove a bundle or environment unless somebody holds it."""
    lock = _lock_exclusively(path)
    if lock is None:
        return False
    parent, name = os.path.split(path)
    trash = _hidden(parent, name, "trash")
    try:
        os.rename(path, trash)
    finally:
        os.close(lock)
    remove_tree(trash)
    return True


def _hidden(parent: str, name: str, what: str) -> str:
    """Return a hidden name that nobody else uses: process numbers are those of one host."""
    return os.path.join(parent, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.{what}")


def in_use(path: str) -> bool:
    """Return whether some process holds a folder."""
    lock = _lock_exclusively(path)
    if lock is None:
        return True
    os.close(lock)
    return False


def _lock_exclusively(path: str) -> int | None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Held; or a file system without locks (some NFS), where nothing is ever removed.
        os.close(lock)
        return None
    if not is_still(lock, path):
        os.close(lock)
        return None
    return lock


def lock_if_possible(handle: int, operation: int) -> None:
    """Lock, or change the lock; nothing happens where the file system has no locks."""
    try:
        fcntl.flock(handle, operation)
    except OSError as exc:
        if exc.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise


def is_still(handle: int, path: str) -> bool:
    """Return whether a path still leads to an open folder."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


def set_aside(path: str) -> None:
    """Take a damaged bundle out of the way; who holds it keeps it until it lets go."""
    parent, name = os.path.split(path)
    hidden = _hidden(parent, name, "damaged")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.rename(path, hidden)
    lock = _lock_exclusively(hidden)
    if lock is not None:
        remove_tree(hidden)
        os.close(lock)
