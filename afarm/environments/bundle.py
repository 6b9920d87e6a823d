"""A distribution or a source tree as one file: the same content, the same bytes.

What stands in it says `archive`. A bundle is packed once and kept in the cache on the
farm's side, found again by a fingerprint of the file list, so that nothing is read twice
that has not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .._agent.build import platform_of_interpreter
from ..errors import DependencyError
from .archive import Packed, write_archive
from .files import File, SourceTree
from .installed import Distribution, not_as_installed
from .places import cache_folder

log = logging.getLogger("afarm")

_FORMAT = "3"  # part of every fingerprint: raise it when the same files give other bytes

DEFAULT_CAP = 10 << 30

# Seconds since its last use during which a bundle stays whatever the cap: a farm that
# runs may still send it to nodes that join.
_RECENT = 24 * 3600


@dataclass(frozen=True, slots=True)
class Bundle:
    """One distribution or source tree, packed.

    Attributes:
        digest: Of its content but bytecode, and of what that is for (`_agent.manifest`): its
            name everywhere.
        kind: What it holds.
        name: For people: ``numpy 2.4.6``, ``mypackage``.
        size: Packed bytes.
        data: Of these, the first that hold all but modules.
        head: Of these, the first that also hold the modules which importing it reads, in the
            order in which they are read; 0 if that is not known.
        path: Where it lies on the farm's side.
        native: Whether it holds machine code.
    """

    digest: str
    kind: Literal["distribution", "source"]
    name: str
    size: int
    data: int
    head: int
    path: Path
    native: bool


def pack(
    content: Distribution | SourceTree,
    folder: Path | None = None,
    *,
    first: Sequence[str] = (),
    cap: int = DEFAULT_CAP,
) -> Bundle:
    """Return a bundle, packed now unless the cache has it. Blocks: disk and hashing.

    Args:
        content: What to pack.
        folder: The cache; default: `cache_folder`.
        first: Paths of files that importing it reads, in that order: they come first.
        cap: Bytes above which what was used least recently is removed from the cache.

    Raises:
        DependencyError: If a file cannot be read, or the cache cannot be written.
    """
    folder = cache_folder() if folder is None else folder
    kind: Literal["distribution", "source"]
    if isinstance(content, Distribution):
        kind, name = "distribution", f"{content.name} {content.version}"
    else:
        kind, name = "source", content.name
    native = any(file.native for file in content.files)
    fingerprint = _fingerprint(content.files)
    path = folder / f"{fingerprint}.tar"
    packed = _cached(path)
    if packed is None:
        try:
            packed = _pack(content.files, first, native, path)
            if packed.changed and not getattr(content, "changed", ()):  # else it was told
                log.warning("%s", not_as_installed(name, packed.changed))
            _trim(folder, cap, keep=path)
        except OSError as exc:
            raise DependencyError(
                f"cannot pack {name} into {folder}: {exc}; another folder can be named in "
                "the environment variable AFARM_CACHE",
                names=[name],
            ) from exc
    return Bundle(packed.digest, kind, name, packed.size, packed.data, packed.head, path, native)


def is_packed(content: Distribution | SourceTree, folder: Path) -> bool:
    """Return whether the cache has a bundle of this content."""
    return _cached(folder / f"{_fingerprint(content.files)}.tar") is not None


def abi(*, native: bool) -> str:
    """Return what the files of a bundle are for: bytecode alone, or machine code too."""
    if not native:
        return str(sys.implementation.cache_tag)
    platform = platform_of_interpreter()
    return f"{platform['abi']}-{platform['system']}-{platform['machine']}".lower()


def _fingerprint(files: tuple[File, ...]) -> str:
    lines = [
        f"{file.name}\0{file.path}\0{file.size}\0{file.mtime_ns}\0{file.executable:d}"
        for file in files
    ]
    text = "\n".join([_FORMAT, str(sys.implementation.cache_tag), *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _cached(path: Path) -> Packed | None:
    try:
        packed = Packed(**json.loads(path.with_suffix(".json").read_text()))
        if path.stat().st_size != packed.size:
            return None
        os.utime(path)  # the least recently used go first
    except (OSError, ValueError, TypeError):
        return None  # absent, or cut off by a full disk: packed again
    return packed


def _pack(files: tuple[File, ...], first: Sequence[str], native: bool, path: Path) -> Packed:
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(prefix=".pack-", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as stream:
            packed = write_archive(stream, files, first=first, abi=abi(native=native))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    with tempfile.NamedTemporaryFile("w", prefix=".index-", dir=path.parent, delete=False) as entry:
        json.dump(asdict(packed), entry)
    os.replace(entry.name, path.with_suffix(".json"))
    return packed


def _trim(folder: Path, cap: int, *, keep: Path) -> None:
    """Remove what was used least recently, but nothing that a running farm may still send."""
    packed = []
    now = time.time()
    for path in [*folder.glob("*.tar"), *folder.glob("*.z")]:
        with contextlib.suppress(FileNotFoundError):  # another process trims as well
            status = path.stat()
            packed.append((status.st_mtime, path, status.st_size))
    total = sum(size for _, _, size in packed)
    for modified, path, size in sorted(packed):
        if total <= cap:
            return
        if path != keep and modified < now - _RECENT:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            total -= size
