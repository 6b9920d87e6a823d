"""A bundle compressed, for links on which that pays.

With zlib, which every interpreter has on both sides. Of scikit-learn's closure level 1 makes
73 MB out of 212; level 6 makes 64 and takes half as long again. Compressed once, in the chunks
in which it travels (`_wire.chunks`), so that sending can turn to it anywhere.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from .._wire.chunks import CHUNK, header
from ..errors import DependencyError
from .bundle import Bundle

_LEVEL = 1

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
    """Return what an earlier program has compressed; its name says of what, and how large it is.

    One name in one step: sizes in a file beside it could belong to another one.
    """
    for found in path.parent.glob(f"{path.stem}-*.z"):
        parts = found.stem.rsplit("-", 2)
        if len(parts) == 3 and parts[1] == str(bundle.size):
            size = found.stat().st_size
            if parts[2] == str(size):
                os.utime(found)
                return Deflated(found, size)
    return None


def _write(path: Path, bundle: Bundle) -> Deflated:
    handle, temporary = tempfile.mkstemp(prefix=".deflate-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target, bundle.path.open("rb") as source:
            while piece := source.read(CHUNK):
                packed = zlib.compress(piece, _LEVEL)
                if len(packed) > _WORTH * len(piece):
                    packed = piece
                target.write(header(len(piece), len(packed)))
                target.write(packed)
            size = target.tell()
        final = path.with_name(f"{path.stem}-{bundle.size}-{size}.z")
        os.replace(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise
    return Deflated(final, size)
