"""Files of the user's that are laid into the directory of each call.

`Farm.options(files=...)`. Each node is sent a file once, as it is sent an object of `put`, and each
call finds it under its name, to be read; a file that has changed here is sent again.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from ._wire.payloads import Buffer
from .errors import DependencyError

if TYPE_CHECKING:
    from .scheduler import Scheduler

_Path: TypeAlias = str | os.PathLike[str]
Files: TypeAlias = _Path | Sequence[_Path] | Mapping[str, _Path]

# Up to this size a file is read when it is first needed; a larger one is mapped.
_READ_LIMIT = 1 << 20


def named_files(files: Files) -> dict[str, str]:
    """Return the absolute path of each file by the name that calls find it under.

    Args:
        files: A path, several, or a path by name. A folder stands for all files in it.

    Raises:
        ValueError: If a path leads nowhere, a name out of the directory, or two have one name.
        TypeError: If something is no path.
    """
    if isinstance(files, (str, os.PathLike)):
        files = (files,)
    if not isinstance(files, Mapping):
        paths = list(files)
        files = {os.path.basename(os.path.abspath(os.fspath(path))): path for path in paths}
        if len(files) < len(paths):
            raise ValueError("files= names two of one name: give each a place, {name: path, ...}")
    found: dict[str, str] = {}
    for name, path in files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name:
            raise ValueError(f"files= lays {path!r} under {name!r}, which is no place in a folder")
        absolute = os.path.abspath(os.fspath(path))
        if not os.path.isdir(absolute):
            if not os.path.isfile(absolute):
                raise ValueError(f"files= names {absolute}, which is no file")
            found[str(pure)] = absolute
            continue
        for parent, _, names in os.walk(absolute):
            inner = pure / os.path.relpath(parent, absolute)
            found.update({str(inner / each): os.path.join(parent, each) for each in names})
    return found


@dataclass(frozen=True, slots=True)
class _Stamp:
    """How a change of a file is noticed."""

    size: int
    mtime_ns: int
    inode: int


class FileBlob:
    """A file as nodes are sent it; stands beside `Ref` among what a call refers to."""

    __slots__ = ("__weakref__", "blob", "content", "owner", "stamp")

    def __init__(self, blob: int, path: str, owner: Scheduler) -> None:
        self.blob = blob
        self.owner = owner
        with open(path, "rb") as file:
            self.stamp = _stamp(os.fstat(file.fileno()))
            self.content: bytes | mmap.mmap = (
                file.read()
                if self.stamp.size <= _READ_LIMIT
                else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            )

    def pieces(self) -> Sequence[Buffer]:
        """Return what is sent."""
        return (memoryview(self.content),)


class LaidFiles:
    """The files of one view of a farm.

    Args:
        files: As `named_files` returns them.
        owner: Of the farm.
    """

    def __init__(self, files: Mapping[str, str], owner: Scheduler) -> None:
        self._files = files
        self._owner = owner
        self._blobs: dict[str, FileBlob] = {}

    def refresh(self) -> bool:
        """Look at the files; return whether one has changed since they were last looked at.

        Raises:
            DependencyError: If one cannot be read.
        """
        changed = False
        for name, path in self._files.items():
            known = self._blobs.get(name)
            try:
                if known is None or _stamp(os.stat(path)) != known.stamp:
                    self._blobs[name] = self._read(path)
                    changed = True
            except OSError as exc:
                raise DependencyError(
                    f"files= names {path}, which cannot be read: {exc.strerror or exc}",
                    names=[path],
                ) from exc
        return changed

    def blobs(self) -> dict[str, int]:
        """Return the number of each file's blob."""
        return {name: blob.blob for name, blob in self._blobs.items()}

    def __iter__(self) -> Iterator[FileBlob]:
        return iter(self._blobs.values())

    def _read(self, path: str) -> FileBlob:
        blob = FileBlob(next(self._owner.numbers), path, self._owner)
        forget: Callable[[int], None] = self._owner.forget_soon
        weakref.finalize(blob, forget, blob.blob).atexit = False
        return blob


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
