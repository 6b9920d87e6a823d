"""Room in a node's cache: what was used least recently goes, unless somebody holds it.

Bundles count, and interpreters that were sent there. Environments are links into bundles, and
go with the first of theirs that does; where they had to be copies, they count as well.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator

from .cache import free
from .leases import in_use, remove_unused
from .notes import read_note

_COUNTED = ("environments", "interpreters", "store")


def bytes_of(path: str, *, shared: bool) -> int:
    """Return what the files below a folder take on the disk.

    Args:
        path: The folder.
        shared: Whether files count that are linked from elsewhere too.
    """
    return sum(each.st_blocks * 512 for each in files_below(path) if shared or each.st_nlink == 1)


def files_below(root: str) -> Iterator[os.stat_result]:
    """Yield the status of each file below a folder."""
    for parent, _, names in os.walk(root):
        for name in names:
            try:
                yield os.lstat(os.path.join(parent, name))
            except FileNotFoundError:
                continue  # another process removes it


def make_room(root: str, cap: int, room: int = 0, held: Container[str] = ()) -> None:
    """Remove what was used least recently, until there is room below the cap and on the disk.

    Args:
        root: The folder of the cache.
        cap: Bytes that all of it may take.
        room: Bytes that are to be written next.
        held: Paths that the caller holds.

    Raises:
        OSError: If the cache cannot be read, or something cannot be removed.
    """
    found = sorted(each for name in _COUNTED for each in _listed(os.path.join(root, name)))
    sizes = {path: size for _, path, size in found}
    total = sum(sizes.values())
    for _, path, _ in found:
        if total + room <= cap and free(root) >= room:
            return
        if path in held or in_use(path):
            continue
        # Links keep the bytes of a bundle: the environments made of it go with it.
        for each in (*_environments_with(root, path), path):
            if remove_unused(each):
                total -= sizes.get(each, 0)


def _listed(parent: str) -> Iterator[tuple[float, str, int]]:
    """Yield when each thing was last used, its path and its size."""
    try:
        entries = os.scandir(parent)
    except FileNotFoundError:
        return  # nothing of that kind has come yet
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            size = read_note(entry.path, "size.json")
            if size is None and os.path.exists(os.path.join(entry.path, "bundles.json")):
                continue  # an environment of links
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat().st_mtime, entry.path, size if isinstance(size, int) else 0


def _environments_with(root: str, path: str) -> list[str]:
    """Return where the environments lie that a bundle is part of; an interpreter is of none."""
    with os.scandir(os.path.join(root, "environments")) as entries:
        places = [entry.path for entry in entries if not entry.name.startswith(".")]
    bundles = {place: read_note(place, "bundles.json") for place in places}
    name = os.path.basename(path)
    return [place for place, of in bundles.items() if isinstance(of, list) and name in of]
