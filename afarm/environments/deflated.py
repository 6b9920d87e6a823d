"""A bundle compressed, for links on which that pays.

With zlib, which every interpreter has on both sides. Of scikit-learn's closure level 1 makes
73 MB out of 212; level 6 makes 64 and takes half as long again. What is written can be inflated
as it arrives: where the head of the bundle ends, all of it is flushed.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DependencyError
from .bundle import Bundle

_LEVEL = 1
_PIECE = 1 << 20

# Above this share of its size a bundle is not worth inflating: wheels of compressed data.
_WORTH = 0.9


@dataclass(frozen=True, slots=True)
class Deflated:
    """A compressed bundle.

    Attributes:
        path: Where it lies on the farm's side: a zlib stream.
        size: Its bytes.
        head: Of these, the first from which `Bundle.head` bytes can be inflated.
    """

    path: Path
    size: int
    head: int


def deflate(bundle: Bundle) -> Deflated | None:
    """Return a bundle compressed, once; ``None`` where that does not pay. Blocks: disk, processor.

    Other threads run meanwhile.

    Raises:
        DependencyError: If it cannot be read or written.
    """
    path = bundle.path.with_suffix(".z")
    try:
        found = _known(path, bundle)
        if found is None:
            found = _write(path, bundle)
    except OSError as exc:
        raise DependencyError(
            f"cannot compress {bundle.name} in {path.parent}: {exc}; another folder can be named "
            "in the environment variable AFARM_CACHE",
            names=[bundle.name],
        ) from exc
    return found if found.size < _WORTH * bundle.size else None


def _known(path: Path, bundle: Bundle) -> Deflated | None:
    """Return what an earlier program has compressed; its name says of what, and where the head is.

    One name in one step: sizes in a file beside it could belong to another one.
    """
    for found in path.parent.glob(f"{path.stem}-*.z"):
        parts = found.stem.rsplit("-", 3)
        if len(parts) == 4 and parts[1] == str(bundle.size) and parts[2].isdigit():
            size = found.stat().st_size
            if parts[3] == str(size):
                os.utime(found)
                return Deflated(found, size, int(parts[2]))
    return None


def _write(path: Path, bundle: Bundle) -> Deflated:
    handle, temporary = tempfile.mkstemp(prefix=".deflate-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target, bundle.path.open("rb") as source:
            packer = zlib.compressobj(_LEVEL)
            for piece in _pieces(source, bundle.head):
                target.write(packer.compress(piece))
            target.write(packer.flush(zlib.Z_SYNC_FLUSH))
            head = target.tell() if bundle.head else 0
            while piece := source.read(_PIECE):
                target.write(packer.compress(piece))
            target.write(packer.flush())
            size = target.tell()
        final = path.with_name(f"{path.stem}-{bundle.size}-{head}-{size}.z")
        os.replace(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise
    return Deflated(final, size, head)


def _pieces(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = source.read(min(size, _PIECE))
        if not piece:
            return
        size -= len(piece)
        yield piece
