"""A distribution or a source tree as one file: the same content, the same bytes.

A bundle is an uncompressed tar with sorted names, one time stamp and two modes. It is
packed once and kept in the cache on the farm's side, found again by a fingerprint of
the file list, so that nothing is read twice that has not changed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from ..errors import DependencyError
from .files import File, SourceTree
from .installed import Distribution

if TYPE_CHECKING:
    import tarfile

_FORMAT = "1"  # part of every fingerprint: raise it when the same files give other bytes

# Any constant does; this one is recognised at sight and lies after 1980, where the time
# stamps of zip files begin (wheels and zip applications are made from installed files).
_MTIME = 1_000_000_000

DEFAULT_CAP = 10 << 30

# Seconds since its last use during which a bundle stays whatever the cap: a farm that
# runs may still send it to nodes that join.
_RECENT = 24 * 3600


@dataclass(frozen=True, slots=True)
class Bundle:
    """One distribution or source tree, packed.

    Attributes:
        digest: SHA-256 of the packed bytes, in hexadecimal: its name everywhere.
        kind: What it holds.
        name: For people: ``numpy 2.4.6``, ``mypackage``.
        size: Packed bytes.
        path: Where it lies on the farm's side.
        native: Whether it holds machine code.
    """

    digest: str
    kind: Literal["distribution", "source"]
    name: str
    size: int
    path: Path
    native: bool


def cache_folder() -> Path:
    """Return the folder of packed bundles on this side."""
    stated = os.environ.get("AFARM_CACHE")
    if stated:
        return Path(stated) / "bundles"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "afarm" / "bundles"


def pack(
    content: Distribution | SourceTree, folder: Path | None = None, *, cap: int = DEFAULT_CAP
) -> Bundle:
    """Return a bundle, packed now unless the cache has it. Blocks: disk and hashing.

    Args:
        content: What to pack.
        folder: The cache; default: `cache_folder`.
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
    index = folder / f"{_fingerprint(content.files)}.json"
    found = _cached(index, folder)
    if found is None:
        try:
            found = _pack(content.files, folder, index)
            _trim(folder, cap, keep=found[0])
        except OSError as exc:
            raise DependencyError(
                f"cannot pack {name} into {folder}: {exc}; another folder can be named in "
                "the environment variable AFARM_CACHE",
                names=[name],
            ) from exc
    digest, size = found
    return Bundle(digest, kind, name, size, folder / f"{digest}.tar", native)


def _fingerprint(files: tuple[File, ...]) -> str:
    lines = [
        f"{file.name}\0{file.path}\0{file.size}\0{file.mtime_ns}\0{file.executable:d}"
        for file in files
    ]
    text = "\n".join([_FORMAT, *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _cached(index: Path, folder: Path) -> tuple[str, int] | None:
    try:
        entry = json.loads(index.read_text())
        digest, size = str(entry["digest"]), int(entry["size"])
        packed = folder / f"{digest}.tar"
        if packed.stat().st_size != size:
            return None
        os.utime(packed)  # the least recently used go first
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or cut off by a full disk: packed again
    return digest, size


def _pack(files: tuple[File, ...], folder: Path, index: Path) -> tuple[str, int]:
    import tarfile
    import tempfile

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(prefix=".pack-", dir=folder)
    try:
        with os.fdopen(handle, "w+b") as stream:
            sink = _Hashing(stream)
            # Of a file, tarfile uses `write` and `tell` alone while it writes.
            target = cast("BinaryIO", sink)
            with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for file in files:
                    _add(archive, file, files)
        digest = sink.hash.hexdigest()
        os.replace(temporary, folder / f"{digest}.tar")
    except BaseException:
        os.unlink(temporary)
        raise
    with tempfile.NamedTemporaryFile("w", prefix=".index-", dir=folder, delete=False) as entry:
        json.dump({"digest": digest, "size": sink.size}, entry)
    os.replace(entry.name, index)
    return digest, sink.size


def _trim(folder: Path, cap: int, *, keep: str) -> None:
    """Remove what was used least recently, but nothing that a running farm may still send."""
    packed = []
    now = time.time()
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process trims as well
            status = path.stat()
            packed.append((status.st_mtime, path, status.st_size))
    total = sum(size for _, _, size in packed)
    for modified, path, size in sorted(packed):
        if total <= cap:
            return
        if path.stem != keep and modified < now - _RECENT:
            path.unlink(missing_ok=True)
            total -= size


def _add(archive: tarfile.TarFile, file: File, files: tuple[File, ...]) -> None:
    entry = archive.tarinfo(file.name)
    entry.mtime = _MTIME
    entry.mode = 0o755 if file.executable else 0o644
    if file.name.startswith("prefix/bin/") or file.name.endswith(".dist-info/RECORD"):
        with open(file.path, "rb") as source:
            data = source.read()
        if file.name.startswith("prefix/bin/"):
            data = _without_interpreter(data)
        else:
            data = _without_this_machine(data, files)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
        return
    with open(file.path, "rb") as source:
        entry.size = os.fstat(source.fileno()).st_size
        archive.addfile(entry, source)


def _without_interpreter(script: bytes) -> bytes:
    """Return a console script with the first line that a wheel has: any Python's.

    An installer writes its own interpreter's path there, or two lines of sh where the
    path is too long for the kernel.
    """
    if script.startswith(b"#!/bin/sh\n'''exec'"):
        return b"#!python\n" + script.split(b"\n", 3)[3]
    first, _, rest = script.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        return b"#!python\n" + rest
    return script


def _without_this_machine(record: bytes, files: tuple[File, ...]) -> bytes:
    """Return a record of only those files that travel, without hashes that differ by machine."""
    travelling = {file.name for file in files}
    lines = []
    for row in csv.reader(record.decode("utf-8", "surrogateescape").splitlines()):
        if not row:
            continue
        if f"site-packages/{row[0]}" in travelling:
            lines.append(row)
        elif row[0].startswith("../"):
            lines.append([row[0], "", ""])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sorted(lines))
    return out.getvalue().encode("utf-8", "surrogateescape")


class _Hashing:
    """Writes through to a file, hashing and counting."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.size
