"""A bundle compressed, for links on which that pays.

With zlib, which every interpreter has on both sides, once, in the chunks in which it travels
(`_wire.chunks`): each is there for whoever sends it as soon as it is compressed, and sending can
turn to them anywhere. Of numpy's bundle, 56.6 MB, whose wheel has 16.9, a core makes

    level 1     19.5 MB, at 78 MB/s
    level 4     17.8 MB, at 50 MB/s
    level 5     17.3 MB, at 38 MB/s
    level 6     17.1 MB, at 22 MB/s
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .._wire.chunks import CHUNK, HEADER, header
from ..errors import DependencyError
from .bundle import Bundle

# Levels of zlib: where the link leaves the time, and where compressing is to keep up with it.
SMALL = 5
QUICK = 1

# Above this share of its size a chunk, or a bundle, is not worth inflating: compressed data.
_WORTH = 0.9


@dataclass(frozen=True, slots=True)
class Deflated:
    """A compressed bundle.

    Attributes:
        path: Where it lies on the farm's side: chunks, each of `CHUNK` bytes but the last.
        size: Its bytes.
    """

    path: Path
    size: int


class Deflating:
    """A bundle that is being compressed, from its first chunk to its last.

    Threads may advance it, one after the other; meanwhile another one may take what is there.
    Compressed once for all programs: when it is whole, the cache has it.

    Args:
        bundle: What to compress.
        level: That of zlib. What the cache has is taken whatever its level.
    """

    def __init__(self, bundle: Bundle, level: int = SMALL) -> None:
        self._bundle = bundle
        self._level = level
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._temporary = ""
        self._places = [0]  # where in the file each chunk begins, and where the last one ends
        self._closed = False
        self.deflated: Deflated | None = None
        self.ended = False

    @property
    def there(self) -> int:
        """How many chunks are compressed."""
        return len(self._places) - 1

    def chunk(self, number: int) -> bytes | None:
        """Return a chunk as it travels; ``None``: it is not there, or cannot be read any more."""
        if number >= self.there or self._file is None:
            return None
        begin, end = self._places[number : number + 2]
        try:
            data = os.pread(self._file.fileno(), end - begin, begin)
        except OSError:
            return None  # it travels as it is
        return data if len(data) == end - begin else None

    def advance(self) -> None:
        """Compress the next chunk, or find all of them in the cache. Blocks: disk, processor.

        Other threads run meanwhile. When nothing is left to do it has `ended`, and `deflated` is
        the file in the cache; ``None`` where compressing does not pay.

        Raises:
            DependencyError: If it cannot be read or written; it has ended then.
        """
        with self._lock:
            if self.ended or self._closed:
                return
            try:
                if self._file is None:
                    self._begin()
                if not self.ended:
                    self._compress_next()
            except OSError as exc:
                self._end()
                folder = self._bundle.path.parent
                raise DependencyError(
                    f"cannot compress {self._bundle.name} in {folder}: {exc}; another folder can "
                    "be named in the environment variable AFARM_CACHE",
                    names=[self._bundle.name],
                ) from exc

    def close(self) -> None:
        """Let go of it; what is not whole is removed. Waits for a chunk that is in the making."""
        with self._lock:
            self._closed = True
            self._end()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _begin(self) -> None:
        found = _known(self._bundle)
        if found is None:
            handle, self._temporary = tempfile.mkstemp(
                prefix=".deflate-", dir=self._bundle.path.parent
            )
            self._file = os.fdopen(handle, "w+b", buffering=0)
            return
        path, self._file, self._places = found
        size = self._places[-1]
        self.deflated = Deflated(path, size) if size else None
        self.ended = True

    def _compress_next(self) -> None:
        assert self._file is not None
        at = self.there * CHUNK
        with self._bundle.path.open("rb") as source:
            source.seek(at)
            content = source.read(CHUNK)
        packed = zlib.compress(content, self._level)
        if len(packed) > _WORTH * len(content):
            packed = content
        piece = memoryview(header(len(content), len(packed)) + packed)
        end = self._places[-1] + len(piece)
        while piece:
            piece = piece[self._file.write(piece) :]
        self._places.append(end)
        if at + len(content) >= self._bundle.size:
            self._keep()

    def _keep(self) -> None:
        """Let the cache have it, or, where that does not pay, a note of that: an empty file."""
        size = self._places[-1]
        if size < _WORTH * self._bundle.size:
            final = _place(self._bundle, size)
            os.replace(self._temporary, final)
            self._temporary = ""
            self.deflated = Deflated(final, size)
        else:
            _place(self._bundle, 0).touch(mode=0o600)
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self._temporary:
            Path(self._temporary).unlink(missing_ok=True)
            self._temporary = ""


def deflate(bundle: Bundle, level: int = SMALL) -> Deflated | None:
    """Return a bundle compressed, once; ``None`` where that does not pay. Blocks: disk, processor.

    Raises:
        DependencyError: If it cannot be read or written.
    """
    deflating = Deflating(bundle, level)
    try:
        while not deflating.ended:
            deflating.advance()
    finally:
        deflating.close()
    return deflating.deflated


def _place(bundle: Bundle, size: int) -> Path:
    """Return where it lies. Its name says of what it is made, and how large it is.

    One name in one step: sizes in a file beside it could belong to another one.
    """
    return bundle.path.with_name(f"{bundle.path.stem}-{bundle.size}-{size}.z")


def _known(bundle: Bundle) -> tuple[Path, BinaryIO, list[int]] | None:
    """Return what an earlier program has compressed: the file, open, and where its chunks begin.

    Raises:
        OSError: If it cannot be read.
    """
    for path in sorted(bundle.path.parent.glob(f"{bundle.path.stem}-{bundle.size}-*.z")):
        with contextlib.ExitStack() as undo:
            try:
                file = undo.enter_context(path.open("rb", buffering=0))
            except FileNotFoundError:
                continue  # another program removes what was used least recently
            size = os.fstat(file.fileno()).st_size
            places = _places_in(file, size)
            if path == _place(bundle, size) and places[-1] == size:
                os.utime(file.fileno())
                undo.pop_all()
                return path, file, places
    return None


def _places_in(file: BinaryIO, size: int) -> list[int]:
    places = [0]
    while places[-1] <= size - HEADER.size:
        _, packed = HEADER.unpack(os.pread(file.fileno(), HEADER.size, places[-1]))
        places.append(places[-1] + HEADER.size + packed)
    return places
