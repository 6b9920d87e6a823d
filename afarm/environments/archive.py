"""What stands in a bundle: the same files, the same bytes.

An uncompressed tar with one time stamp and two modes. First its manifest
(`_agent.manifest`); then all that is no module (`_agent.parts`), by name; then the modules that
importing it reads, in the order in which they are read; then the other modules by name. Bytecode
follows its source.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from .._agent import manifest
from .._agent.parts import is_module
from .carried import bytecode_name, bytecode_of
from .files import File

if TYPE_CHECKING:
    import tarfile

# Any constant does; this one is recognised at sight and lies after 1980, where the time
# stamps of zip files begin (wheels and zip applications are made from installed files).
_MTIME = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Packed:
    """What was written.

    Attributes:
        digest: The name of the bundle.
        size: Bytes.
        data: Bytes up to the first module.
        head: Bytes up to the last module that importing it reads; 0 if there is none.
        changed: Names of files whose content is not what their installer has noted.
    """

    digest: str
    size: int
    data: int
    head: int
    changed: Sequence[str] = ()


def write_archive(
    stream: BinaryIO, files: Sequence[File], *, first: Sequence[str] = (), abi: str
) -> Packed:
    """Write the bundle of some files. Blocks: disk and hashing.

    Args:
        stream: An empty file.
        files: Sorted by name.
        first: Paths of the modules that are to come first, in this order.
        abi: As `manifest.text`.

    Raises:
        OSError: If a file cannot be read, or the stream cannot be written.
    """
    import tarfile

    rank = {path: at for at, path in enumerate(first)}

    def place(file: File) -> tuple[bool, int, str]:
        module = is_module(file.name)
        return module, rank.get(file.path, len(rank)) if module else 0, file.name

    ordered = sorted(files, key=place)
    entries = list(_entries(ordered))
    # The manifest comes first and is known last. Its length is known at once.
    blank = "0" * 64
    places = manifest.text(abi, [_line(entry, blank) for entry in entries])
    lines = []
    changed = []
    head = 0
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, manifest.MANIFEST, io.BytesIO(places), len(places), executable=False)
        data = archive.offset
        begin = archive.offset - len(places) - -len(places) % tarfile.BLOCKSIZE
        for entry in entries:
            sha256 = _add_entry(archive, entry, files)
            lines.append(_line(entry, sha256))
            if entry.bytecode is None and not _is_as_recorded(entry.file, sha256):
                changed.append(entry.name)
            if not is_module(entry.name):
                data = archive.offset
            elif entry.file.path in rank:
                head = archive.offset
    size = stream.tell()
    text = manifest.text(abi, lines)
    stream.seek(begin)
    stream.write(text)
    return Packed(manifest.digest_of(text), size, data, head, changed)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in the archive: one of the bundle's files, or the bytecode of one."""

    name: str
    file: File
    bytecode: bytes | None = None


def _entries(files: Sequence[File]) -> Iterator[_Entry]:
    for file in files:
        yield _Entry(file.name, file)
        name = bytecode_name(file)
        data = bytecode_of(file) if name is not None else None
        if name is not None and data is not None:
            yield _Entry(name, file, data)


def _is_as_recorded(file: File, sha256: str) -> bool:
    if not file.recorded or _names_this_machine(file):
        return True
    found = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode()
    return found.rstrip("=") == file.recorded.rstrip("=")


def _line(entry: _Entry, sha256: str) -> str:
    executable = entry.file.executable and entry.bytecode is None
    return manifest.line(entry.name, sha256, executable=executable)


def _add_entry(archive: tarfile.TarFile, entry: _Entry, files: Sequence[File]) -> str:
    """Add a file; return its SHA-256."""
    data = entry.bytecode if entry.bytecode is not None else _rewritten(entry.file, files)
    if data is not None:
        executable = entry.file.executable and entry.bytecode is None
        _add(archive, entry.name, io.BytesIO(data), len(data), executable=executable)
        return hashlib.sha256(data).hexdigest()
    with open(entry.file.path, "rb") as source:
        reader = _Hashing(source)
        size = os.fstat(source.fileno()).st_size
        _add(archive, entry.name, reader, size, executable=entry.file.executable)
    return reader.hash.hexdigest()


def _add(
    archive: tarfile.TarFile, name: str, data: _Hashing | io.BytesIO, size: int, *, executable: bool
) -> None:
    entry = archive.tarinfo(name)
    entry.mtime = _MTIME
    entry.mode = 0o755 if executable else 0o644
    entry.size = size
    archive.addfile(entry, data)  # type: ignore[arg-type]  # it uses `read` alone


def _names_this_machine(file: File) -> bool:
    return file.name.startswith("prefix/bin/") or file.name.endswith(".dist-info/RECORD")


def _rewritten(file: File, files: Sequence[File]) -> bytes | None:
    """Return what travels instead of a file that names this machine."""
    script = file.name.startswith("prefix/bin/")
    if not _names_this_machine(file):
        return None
    with open(file.path, "rb") as source:
        data = source.read()
    return _without_interpreter(data) if script else _without_this_machine(data, files)


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


def _without_this_machine(record: bytes, files: Sequence[File]) -> bytes:
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
    """Reads a file, hashing it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data
