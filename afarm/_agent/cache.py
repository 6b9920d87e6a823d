"""The folder of caches and scratch directories on a node: where it is, whether it can be used."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..resources import format_bytes


class StoreError(Exception):
    """Something cannot be stored or built: the message says why, and what to do."""


def default_root(stated: str = "") -> str:
    """Return the folder of caches and scratch directories on this node.

    Args:
        stated: What the user stated for the node, if anything.
    """
    root = stated or os.environ.get("AFARM_CACHE") or f"/var/tmp/afarm-{os.getuid()}"
    return os.path.abspath(os.path.expanduser(root))


def claim(root: str) -> None:
    """Make the folder if need be; it must be this user's, and closed to writers.

    Raises:
        StoreError: If it is not.
        OSError: If it cannot be made.
    """
    os.makedirs(os.path.dirname(root) or ".", exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(root, 0o700)
    status = os.lstat(root)  # a link in a folder that all may write to is anybody's
    if stat.S_ISLNK(status.st_mode) and not os.stat(os.path.dirname(root)).st_mode & stat.S_IWOTH:
        status = os.stat(root)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StoreError(f"{root} is not a folder of this user; name another with scratch=")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(f"{root} can be written by others; chmod go-w {root}")


def why_not_to_ship(root: str) -> str:
    """Return why nothing that is shipped could run from the folder, or an empty string."""
    if os.statvfs(root).f_flag & getattr(os, "ST_NOEXEC", 0):
        return (
            f"{root} is mounted noexec, so that no native library can be loaded from it; "
            "name another folder with scratch="
        )
    return ""


def explain(exc: OSError, root: str) -> str:
    """Return what an error of the file system means for the user and what to do."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no room in {root} ({format_bytes(free(root))} free): make room, "
            "or name another folder with scratch="
        )
    if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"cannot write into {root}: {exc}; name another folder with scratch="
    return f"cannot use {root}: {exc}; name another folder with scratch="


def free(path: str) -> int:
    """Return the bytes that this user may still write to the file system of a path.

    Where the path is not there yet, of the nearest folder above that is.
    """
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
