"""A tar, in whatever pieces it arrives, to files in a folder.

Only what bundles consist of is understood: regular files, with PAX headers for long
names. Everything else (links, devices, absolute names, ``..``) is refused, so that
nothing is ever written outside of the folder. Each file is held against the manifest that
comes first: once it has its own name and mode, it is what the farm packed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping

from . import manifest

_BLOCK = 512
_LARGEST_HEADER = 1 << 20
_LARGEST_MANIFEST = 64 << 20

_FILE = b"0"
_PAX = b"x"


class UnpackError(Exception):
    """What arrived is not a bundle: the message says what is wrong with it."""


class Unpacker:
    """Writes the files of a tar as it arrives.

    Args:
        folder: An empty folder that nobody else writes to.
        digest: The name of the bundle. Empty: a tar without a manifest.
    """

    def __init__(self, folder: str, digest: str = "") -> None:
        self._folder = folder
        self._digest = digest
        self._stated: Mapping[str, str] | None = None  # SHA-256 by name
        self._manifest: bytearray | None = None  # as far as it has come
        self._hash = hashlib.sha256()
        self._folders = {""}
        self._held = b""  # less than a block, or an incomplete PAX header
        self._left = 0  # bytes of the present file still to come
        self._padding = 0
        self._file: int | None = None
        self._mode = 0o444
        self._pax: dict[str, str] = {}
        self._pax_left = 0
        self._ended = False
        self.names: list[str] = []
        self.bytes = 0

    @property
    def listed(self) -> Collection[str] | None:
        """The files that it consists of, in their order; ``None`` until that list has come."""
        return self._stated

    def finished(self) -> list[str]:
        """Return the files that are verified, whole and of their final mode, in their order."""
        return self.names if self._file is None else self.names[:-1]

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            UnpackError: If they are not part of a bundle.
            OSError: If a file cannot be written.
        """
        view = memoryview(data)
        if self._held:
            view = memoryview(self._held + bytes(view))
            self._held = b""
        at = 0
        end = len(view)
        while at < end:
            if self._left:
                piece = view[at : at + self._left]
                self._take(piece)
                self._left -= len(piece)
                at += len(piece)
                if not self._left:
                    self._finish_file()
            elif self._padding:
                step = min(self._padding, end - at)
                self._padding -= step
                at += step
            elif self._pax_left:
                if end - at < self._pax_left:
                    break
                self._pax = _read_pax(bytes(view[at : at + self._pax_left]))
                at += self._pax_left
                self._padding = -self._pax_left % _BLOCK
                self._pax_left = 0
            else:
                if end - at < _BLOCK:
                    break
                self._header(bytes(view[at : at + _BLOCK]))
                at += _BLOCK
        self._held = bytes(view[at:])

    def close(self) -> None:
        """Say that everything has come.

        Raises:
            UnpackError: If it ends in the middle.
        """
        if self._file is not None or self._left or not self._ended:
            raise UnpackError("it ends in the middle")
        if self._stated is not None and len(self._stated) != len(self.names):
            missing = (set(self._stated) - set(self.names)).pop()
            raise UnpackError(f"{missing!r} did not come")

    def abort(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _header(self, block: bytes) -> None:
        if block.count(0) == _BLOCK:
            self._ended = True
            return
        if self._ended:
            raise UnpackError("something follows its end")
        stated = _number(block[148:156])
        if sum(block[:148]) + 8 * 32 + sum(block[156:]) != stated:
            raise UnpackError("the checksum of a header is wrong")
        size = _number(block[124:136])
        kind = block[156:157]
        if kind == _PAX:
            if not 0 < size <= _LARGEST_HEADER:
                raise UnpackError(f"a header of {size} bytes")
            self._pax_left = size
            return
        name = self._pax.get("path") or _name(block)
        if kind != _FILE:
            raise UnpackError(f"{name!r} is not a regular file")
        if "size" in self._pax:
            size = _decimal(self._pax["size"])
        self._pax = {}
        self._begin_file(name, size, bool(_number(block[100:108]) & 0o100))

    def _begin_file(self, name: str, size: int, executable: bool) -> None:
        parts = name.split("/")
        if self._digest and self._stated is None:
            if name != manifest.MANIFEST or size > _LARGEST_MANIFEST:
                raise UnpackError("it does not begin with the list of what it holds")
            self._manifest = bytearray()
            self._left = size
            self._padding = -size % _BLOCK
            return
        if self._stated is not None and name not in self._stated:
            raise UnpackError(f"{name!r} is not in its list of what it holds")
        if not name or name.startswith("/") or "\0" in name or {"", ".", ".."} & set(parts):
            raise UnpackError(f"{name!r} is not a path inside it")
        self._make_folders("/".join(parts[:-1]))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(os.path.join(self._folder, name), flags, 0o600)
        except FileExistsError as exc:
            raise UnpackError(f"{name!r} comes twice") from exc
        self._mode = 0o555 if executable else 0o444
        self._hash = hashlib.sha256()
        self.names.append(name)
        self.bytes += size
        self._left = size
        self._padding = -size % _BLOCK
        if not size:
            self._finish_file()

    def _make_folders(self, folder: str) -> None:
        if folder in self._folders:
            return
        parent = folder.rpartition("/")[0]
        self._make_folders(parent)
        try:
            os.mkdir(os.path.join(self._folder, folder), 0o700)
        except FileExistsError as exc:
            raise UnpackError(f"{folder!r} is both a file and a folder") from exc
        self._folders.add(folder)

    def _take(self, piece: memoryview) -> None:
        if self._manifest is not None:
            self._manifest += piece
            return
        _write_all(self._open_file(), piece)
        if self._stated is not None:
            self._hash.update(piece)

    def _finish_manifest(self, data: bytes) -> None:
        self._manifest = None
        try:
            self._stated = manifest.read(data)
        except manifest.ManifestError as exc:
            raise UnpackError(str(exc)) from exc
        if manifest.digest_of(data) != self._digest:
            raise UnpackError("its content is not what its digest names")

    def _open_file(self) -> int:
        if self._file is None:
            raise UnpackError("bytes that belong to no file")
        return self._file

    def _finish_file(self) -> None:
        if self._manifest is not None:
            self._finish_manifest(bytes(self._manifest))
            return
        name = self.names[-1] if self.names else ""
        if self._stated is not None and self._hash.hexdigest() != self._stated[name]:
            raise UnpackError(f"{name!r} is not what its digest names")
        handle = self._open_file()
        os.fchmod(handle, self._mode)
        self._file = None
        os.close(handle)


def _write_all(handle: int, view: memoryview) -> None:
    while view:
        view = view[os.write(handle, view) :]


def _name(block: bytes) -> str:
    name = os.fsdecode(block[:100].rstrip(b"\0"))
    prefix = os.fsdecode(block[345:500].rstrip(b"\0"))
    return f"{prefix}/{name}" if prefix else name


def _number(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):  # base 256, for what octal digits cannot hold
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError as exc:
        raise UnpackError(f"{field!r} is not a number") from exc


def _decimal(text: str) -> int:
    if not text.isdecimal():
        raise UnpackError(f"{text!r} is not a size")
    return int(text)


def _read_pax(data: bytes) -> dict[str, str]:
    """Return the records of a PAX header: ``LENGTH KEY=VALUE\\n``."""
    records = {}
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data) - at:
            raise UnpackError("a PAX header is malformed")
        record = data[at + len(length) + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise UnpackError("a PAX header is malformed")
        records[key.decode("ascii", "replace")] = os.fsdecode(value[:-1])
        at += int(length)
    return records
