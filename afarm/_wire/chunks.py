"""How the content of a bundle travels: in chunks, each as it is or compressed by itself.

Whether compressing pays depends on the link, which is measured while it carries the first of
them. Each begins with two numbers of 32 bits: how many bytes it holds, and how many follow.
If these are as many, they are the content; else a zlib stream of it.

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from ..errors import RemoteProtocolError

# With its header it fits into one bulk frame. Of zlib's window, 32 KiB, it is eight times as
# much: whole bundles are compressed by 1 % more.
CHUNK = 252 << 10

HEADER = struct.Struct("<II")


def header(size: int, packed: int) -> bytes:
    """Return what stands before a chunk of ``size`` bytes that travels as ``packed`` bytes."""
    return HEADER.pack(size, packed)


class ChunkReader:
    """Content out of chunks, in whatever pieces they arrive."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # of the present chunk, still to come
        self._size = 0  # of what it holds, still to come
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """Yield the content in some bytes.

        Raises:
            RemoteProtocolError: If they are no chunks.
        """
        view = memoryview(data)
        while view:
            if not self._left:
                missing = HEADER.size - len(self._head)
                self._head += view[:missing]
                view = view[missing:]
                if len(self._head) == HEADER.size:
                    self._begin()
                continue
            piece, view = view[: self._left], view[self._left :]
            self._left -= len(piece)
            content = piece if self._inflate is None else self._inflated(piece)
            self._size -= len(content)
            if not self._left and self._size:
                raise RemoteProtocolError(f"a chunk lacks {self._size} bytes of its content")
            yield content

    def _begin(self) -> None:
        size, packed = HEADER.unpack(self._head)
        if not 0 < size <= CHUNK or not 0 < packed <= size:
            raise RemoteProtocolError(f"a chunk of {size} bytes in {packed}")
        self._head = b""
        self._left, self._size = packed, size
        self._inflate = None if packed == size else zlib.decompressobj()

    def _inflated(self, piece: memoryview) -> bytes:
        assert self._inflate is not None
        try:
            # One byte more than there may be: never more memory than a chunk.
            content = self._inflate.decompress(piece, self._size + 1)
        except zlib.error as exc:
            raise RemoteProtocolError(f"a chunk cannot be inflated: {exc}") from exc
        if len(content) > self._size:
            raise RemoteProtocolError("a chunk holds more than it says")
        return content
