"""Length-prefixed frames out of any chunking of a byte stream, and back.

A frame is a header of 16 bytes and a body. The header says the body's length, what
kind of message it is, and its subject: the invocation or blob that it is about.

Frames of control messages are handed out whole. Bulk frames carry slices of blobs;
their bytes are handed out as they arrive, so that a blob of any size passes without
being gathered here. Every length is checked before memory is taken for it.

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import LocalProtocolError, RemoteProtocolError

HEADER = struct.Struct("<IHHQ")  # length of the body, kind, check, subject

# In each header, so that a stream that lost its place (a program that prints into it)
# is noticed at the next frame instead of being taken for lengths.
CHECK = 0xAF42

# The body of a control message: an invocation's small arguments or result travel in
# it, larger ones as bulk. 64 KiB of payload (`payloads.INLINE`) and its fields fit;
# a function's settings or a node's description may be larger.
CONTROL_LIMIT = 1 << 20

# The largest slice of a blob in one frame. A control frame waits for at most one slice
# in each queue on its way: at 20 Mbit/s one of 64 KiB takes 26 ms.
BULK_LIMIT = 1 << 18

BULK = 1  # the one kind that frames know about; the others belong to `messages`


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole control frame."""

    kind: int
    subject: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fragment:
    """Some bytes of the blob ``subject``, next in order.

    ``data`` is valid until the next call of `FrameReader.feed`.
    """

    subject: int
    data: memoryview


def pack_header(kind: int, subject: int, length: int) -> bytes:
    """Return the 16 bytes in front of a body of this length."""
    if length > (BULK_LIMIT if kind == BULK else CONTROL_LIMIT):
        raise LocalProtocolError(f"a frame of kind {kind} cannot carry {length} bytes")
    return HEADER.pack(length, kind, CHECK, subject)


class FrameReader:
    """Turns what arrives into frames and fragments.

    Args:
        kinds: The control kinds this end understands; any other is an error.
    """

    def __init__(self, kinds: frozenset[int]) -> None:
        self._kinds = kinds
        self._buffer = b""  # an incomplete header, or an incomplete control frame
        self._bulk_left = 0  # of the bulk frame being read
        self._bulk_subject = 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame | Fragment]:
        """Return what ``data`` completes, in order.

        Raises:
            RemoteProtocolError: If the stream is not frames of known kinds and
                allowed lengths. The reader must not be used after that.
        """
        if self._buffer:
            view = memoryview(self._buffer + bytes(data))
            self._buffer = b""
        else:
            view = memoryview(data)
        found: list[Frame | Fragment] = []
        at = 0
        end = len(view)
        unpack = HEADER.unpack_from
        while at < end:
            if self._bulk_left:
                upto = min(end, at + self._bulk_left)
                found.append(Fragment(self._bulk_subject, view[at:upto]))
                self._bulk_left -= upto - at
                at = upto
                continue
            if end - at < HEADER.size:
                break
            length, kind, check, subject = unpack(view, at)
            if check != CHECK:
                raise RemoteProtocolError(
                    f"no frame begins with {bytes(view[at : at + 16])!r}: "
                    "something else wrote into the connection"
                )
            if kind == BULK:
                if length > BULK_LIMIT:
                    raise RemoteProtocolError(
                        f"a bulk frame of {length} bytes, more than {BULK_LIMIT}"
                    )
                self._bulk_left = length
                self._bulk_subject = subject
                at += HEADER.size
                continue
            if kind not in self._kinds:
                raise RemoteProtocolError(f"a frame of unknown kind {kind}")
            if length > CONTROL_LIMIT:
                raise RemoteProtocolError(
                    f"a control frame of {length} bytes, more than {CONTROL_LIMIT}"
                )
            stop = at + HEADER.size + length
            if stop > end:
                break
            found.append(Frame(kind, subject, bytes(view[at + HEADER.size : stop])))
            at = stop
        if at < end:
            self._buffer = bytes(view[at:])
        return found

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame that are held."""
        return len(self._buffer)
