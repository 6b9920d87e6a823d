"""How pickles and their out-of-band buffers lie in a payload.

A payload is a list of groups, each a pickle (protocol 5) followed by its out-of-band
buffers. The arguments of a call are one group, and each result of an earlier invocation
that is passed on as an argument is another; a result is one group.

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Sequence

from ..errors import LocalProtocolError, RemoteProtocolError

# A payload of at most this many bytes travels inside its message. One system call moves
# 64 KiB through a pipe or a socket; above that the copy into the frame starts to count.
INLINE = 1 << 16

# More than any call has; each part costs both ends an allocation of its own.
PARTS_LIMIT = 1 << 16

# Buffers inside a joined blob start at multiples of this: what vector instructions
# and numpy's aligned loops like best.
ALIGNMENT = 64

Buffer = bytes | bytearray | memoryview

# From this size on, room for bytes is mapped: `bytearray` would write zeros into all of it
# first (0.1 s for 200 MB, in which the loop stands still), and fault on every 4 KiB.
MAPPED = 4 << 20

# How much of it the kernel is asked for at once, when less than half of that is left: a fault for
# each page takes twice as long, 0.04 s more for 200 MB.
_PAGES = 1 << 19
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python has no name for it


def pack_layout(groups: Sequence[Sequence[int]]) -> bytes:
    """Return the lengths of all parts of all groups; empty for the one part of most calls."""
    if len(groups) == 1 and len(groups[0]) == 1:
        return b""
    numbers = [len(groups)]
    for lengths in groups:
        numbers.append(len(lengths))
        numbers.extend(lengths)
    if len(numbers) > PARTS_LIMIT:
        raise LocalProtocolError(
            f"a payload of {len(numbers)} separate buffers; pass fewer, larger arrays"
        )
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def unpack_layout(layout: bytes, size: int) -> list[list[int]]:
    """Return the lengths of the parts of each group of a payload of ``size`` bytes.

    Raises:
        RemoteProtocolError: If they do not add up to ``size``.
    """
    if not layout:
        return [[size]]
    count, odd = divmod(len(layout), 8)
    if odd or count > PARTS_LIMIT:
        raise RemoteProtocolError(f"a layout of {len(layout)} bytes")
    numbers = struct.unpack(f"<{count}Q", layout)
    groups = []
    at = 1
    for _ in range(min(numbers[0], count)):
        if at >= count or at + 1 + numbers[at] > count:
            raise RemoteProtocolError("a layout that ends too early")
        groups.append(list(numbers[at + 1 : at + 1 + numbers[at]]))
        at += 1 + numbers[at]
    total = sum(map(sum, groups))
    if at != count or len(groups) != numbers[0] or total != size or not all(groups):
        raise RemoteProtocolError(f"a layout of {total} bytes for a payload of {size}")
    return groups


def slices(body: Buffer, groups: Sequence[Sequence[int]]) -> list[list[memoryview]]:
    """Return the parts of a payload that lies in one buffer."""
    view = memoryview(body)
    found = []
    at = 0
    for lengths in groups:
        parts = []
        for length in lengths:
            parts.append(view[at : at + length])
            at += length
        found.append(parts)
    return found


def make_room(size: int) -> bytearray | memoryview:
    """Return a writable buffer of ``size`` bytes; large ones take memory as they are filled."""
    if size < MAPPED:
        return bytearray(size)
    # Private: the user's code may fork, and each process is to have its own afterwards.
    # Not in huge pages: they save 0.05 s for 200 MB, but in a virtual machine that gives free
    # memory back to its host each of them can cost 5 ms.
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Gather:
    """Takes a payload's bytes as they arrive, each part into a buffer of its own.

    The buffers are writable and separate, so that arrays unpickled from them are
    writable and keep nothing else alive.

    Args:
        groups: The lengths of the parts, from `unpack_layout`.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self.groups = [[make_room(n) for n in lengths] for lengths in groups]
        self._targets = [memoryview(part) for group in self.groups for part in group if len(part)]
        self._targets.reverse()
        self._at = 0
        self._made = 0  # bytes of the present part whose pages were asked for
        self.left = sum(map(len, self._targets))

    def target(self) -> memoryview:
        """Return the room for the bytes that come next; pass what was filled to `advance`."""
        part = self._targets[-1]
        if self._at + _PAGES // 2 > self._made < len(part):
            self._make_pages(part)
        return part[self._at :]

    def _make_pages(self, part: memoryview) -> None:
        start, self._made = self._made, self._made + _PAGES
        mapped = part.obj
        if not isinstance(mapped, mmap.mmap) or sys.platform != "linux":
            self._made = len(part)
            return
        try:
            mapped.madvise(_MADV_POPULATE_WRITE, start, min(_PAGES, len(part) - start))
        except OSError:  # an older kernel, or no memory: then each page comes as it is touched
            self._made = len(part)

    def advance(self, count: int) -> None:
        """Note that ``count`` bytes were put into `target`."""
        self._at += count
        self.left -= count
        if self._at == len(self._targets[-1]):
            self._targets.pop()
            self._at = self._made = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes.

        Raises:
            RemoteProtocolError: If there are more than the layout announced.
        """
        view = memoryview(data)
        while len(view):
            if not self._targets:
                raise RemoteProtocolError(f"{len(view)} bytes more than the payload has")
            room = self.target()
            if len(view) <= len(room):
                room[: len(view)] = view
                self.advance(len(view))
                return
            room[:] = view[: len(room)]
            self.advance(len(room))
            view = view[len(room) :]

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.left == 0


def join(parts: Sequence[Buffer]) -> list[Buffer]:
    """Return a pickle and its buffers as one self-describing blob, in pieces to send in order."""
    head = struct.pack(f"<{len(parts) + 1}Q", len(parts), *(memoryview(p).nbytes for p in parts))
    pieces: list[Buffer] = [head]
    at = len(head)
    for part in parts:
        pad = -at % ALIGNMENT
        if pad:
            pieces.append(bytes(pad))
        pieces.append(part)
        at += pad + memoryview(part).nbytes
    return pieces


def split(blob: Buffer) -> list[memoryview]:
    """Return the pickle and its buffers out of a joined blob, without copying.

    Raises:
        RemoteProtocolError: If it is not such a blob.
    """
    view = memoryview(blob)
    if len(view) < 8:
        raise RemoteProtocolError("a blob that is too short")
    (count,) = struct.unpack_from("<Q", view)
    if count > PARTS_LIMIT or len(view) < 8 * (count + 1):
        raise RemoteProtocolError(f"a blob that announces {count} parts")
    lengths = struct.unpack_from(f"<{count}Q", view, 8)
    at = 8 * (count + 1)
    parts = []
    for length in lengths:
        at += -at % ALIGNMENT
        if at + length > len(view):
            raise RemoteProtocolError("a blob that ends too early")
        parts.append(view[at : at + length])
        at += length
    return parts
