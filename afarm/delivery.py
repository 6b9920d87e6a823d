"""The bundles of one connection on their way out, in the order in which they are needed.

First of each what is no module, then of each the modules that importing it reads, then the
rest: so importing can begin when a third of scikit-learn's closure is there. Meanwhile the
link's rate becomes known; where compressing pays, what is sent next is compressed, each chunk
as soon as it is there.
"""

from __future__ import annotations

import asyncio
import mmap
import zlib
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ._wire import flow
from ._wire.chunks import CHUNK, HEADER, header
from .compressing import Compression

if TYPE_CHECKING:
    from .environments import Bundle

# Bytes/s, a link's rate above which bundles go as they are. Level 1 leaves a third of them, so
# that inflating, verifying and writing them (some 150 MB/s in one process of a node) would be
# what takes time from a third of that on: 400 Mbit/s.
PAYS = 50e6

# Bytes/s, a link's rate below which a chunk is waited for, and made small rather than quickly: a
# core compresses 38 MB/s like that (`environments.deflated`), and is ahead also with half of it.
# On faster links what is not compressed yet goes as it is, so that neither waits for the other.
WAITS = 10e6


class _Parcel:
    """One bundle on its way."""

    __slots__ = ("bundle", "compression", "content", "credit", "marks", "sent", "subject")

    def __init__(self, subject: int, bundle: Bundle) -> None:
        self.subject = subject
        self.bundle = bundle
        self.content = _map(bundle.path)
        self.marks = (bundle.data, max(bundle.data, bundle.head), bundle.size)
        self.sent = 0  # bytes of its content
        self.credit = flow.CREDIT
        self.compression: Compression | None = None

    @property
    def compressed(self) -> int:
        """How many bytes of its content are compressed, or as many as ever will be."""
        assert self.compression is not None
        return len(self.content) if self.compression.ended else self.compression.there * CHUNK

    def chunk(self) -> memoryview | None:
        """Return the next chunk if it is there compressed; it counts as sent."""
        found = None if self.compression is None else self.compression.chunk(self.sent // CHUNK)
        if found is None:
            return None
        self.sent += HEADER.unpack_from(found)[0]
        return memoryview(found)

    def content_of_chunk(self) -> list[memoryview]:
        """Return the next chunk as it is, but for zeros; it counts as sent."""
        content = self.content[self.sent : self.sent + CHUNK]
        self.sent += len(content)
        # Comparing copies it: looked at first is what differs in nearly all others.
        if not content[0] and not content[-1] and content.tobytes() == bytes(CHUNK):
            return [memoryview(_zeros())]
        return [memoryview(header(len(content), len(content))), content]


class Delivery:
    """All bundles that are to go to one node; for its link, one stream of bytes.

    Args:
        rate: Returns the link's rate in bytes/s, 0.0 as long as it is not known.
        resume: Called when there is something to send again, after waiting for it.
    """

    def __init__(self, rate: Callable[[], float], resume: Callable[[], None]) -> None:
        self._rate = rate
        self._resume = resume
        self._parcels: dict[int, _Parcel] = {}  # in the order in which they are needed
        self._current: _Parcel | None = None
        self._pieces: deque[memoryview] = deque()
        self._compressed: list[_Parcel] = []  # in that order, too; what has compressions
        self._compressing: asyncio.Task[None] | None = None
        self._waiting: asyncio.TimerHandle | None = None  # for a chunk, until then
        self._unanswered: set[int] = set()
        self.left = 0  # bytes of the present chunk; 0: nothing is to be sent now

    def add(self, subject: int, bundle: Bundle) -> None:
        """Send a bundle, too.

        Raises:
            OSError: If it cannot be read.
        """
        self._parcels[subject] = _Parcel(subject, bundle)
        self._unanswered.add(subject)
        if not self.left:
            self._load()

    def __contains__(self, subject: int) -> bool:
        """Whether a bundle was sent, or will be, for which the node has not answered yet."""
        return subject in self._unanswered

    def answered(self, subject: int) -> None:
        """Note that the node has a bundle, or cannot have it."""
        self._unanswered.discard(subject)

    @property
    def subject(self) -> int:
        """The blob that the next bytes belong to."""
        assert self._current is not None
        return self._current.subject

    @property
    def credit(self) -> int:
        """How many bytes of it the node has room for."""
        assert self._current is not None
        return self._current.credit

    def renew(self, subject: int, amount: int) -> bool:
        """Note that the node has consumed bytes of a blob; return whether it is on its way here."""
        parcel = self._parcels.get(subject)
        if parcel is None:
            return False
        parcel.credit += amount
        return True

    def take(self, most: int) -> list[memoryview]:
        """Return the next bytes, at most ``most`` and of one blob, without copying."""
        assert self._current is not None
        taken = []
        while most > 0 and self._pieces:
            piece = self._pieces[0]
            part = piece[:most]
            taken.append(part)
            most -= len(part)
            self.left -= len(part)
            self._current.credit -= len(part)
            if len(part) == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[len(part) :]
        if not self.left:
            self._load()
        return taken

    def close(self) -> None:
        """Send nothing more."""
        self._parcels.clear()
        self._pieces.clear()
        self.left = 0
        self._wait_no_more()
        if self._compressing is not None:
            self._compressing.cancel()
        for parcel in self._compressed:
            assert parcel.compression is not None
            parcel.compression.release()
        self._compressed.clear()

    def _load(self, *, wait: bool = True) -> None:
        """Make the next chunk the present one, unless it is worth waiting for."""
        parcel = self._current
        if parcel is not None and parcel.sent == len(parcel.content):
            self._parcels.pop(parcel.subject, None)
            self._let_go()
        self._current = parcel = self._next()
        if parcel is None:
            return
        rate = self._rate()
        chunk = None
        if 0 < rate < PAYS:
            self._compress(quickly=rate > WAITS)
            chunk = parcel.chunk()
            if chunk is None and wait and rate < WAITS and parcel.compressed <= parcel.sent:
                self._wait(CHUNK / rate)
                return
        self._wait_no_more()
        self._pieces.extend(parcel.content_of_chunk() if chunk is None else [chunk])
        self.left = sum(map(len, self._pieces))

    def _next(self) -> _Parcel | None:
        for part in range(3):
            for parcel in self._parcels.values():
                if parcel.sent < parcel.marks[part]:
                    return parcel
        return None

    # --- waiting for what is being compressed

    def _wait(self, seconds: float) -> None:
        """Wait no longer than it takes to send the chunk as it is: at worst twice that long."""
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(seconds, self._look_again, False)

    def _look_again(self, wait: bool) -> None:
        self._load(wait=wait)
        if self.left:
            self._resume()

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    # --- compressing

    def _compress(self, *, quickly: bool) -> None:
        """Have all that is to be sent compressed."""
        for parcel in self._parcels.values():
            if parcel.compression is None:
                parcel.compression = Compression.of(parcel.bundle, quickly=quickly)
                self._compressed.append(parcel)
        if self._compressing is None and self._next_to_compress():
            self._compressing = asyncio.get_running_loop().create_task(self._keep_compressing())

    async def _keep_compressing(self) -> None:
        """Compress in the order of sending, to the end: the next node has it from the cache."""
        while compression := self._next_to_compress():
            await compression.step()
            self._let_go()
            if self._waiting is not None:
                self._look_again(True)
        self._compressing = None

    def _let_go(self) -> None:
        """Release the compressions of which nothing more is wanted: each holds a file open."""
        for parcel in list(self._compressed):
            assert parcel.compression is not None
            if parcel.compression.ended and parcel.sent == len(parcel.content):
                parcel.compression.release()
                self._compressed.remove(parcel)

    def _next_to_compress(self) -> Compression | None:
        for part in range(3):
            for parcel in self._compressed:
                if parcel.compressed < parcel.marks[part]:
                    return parcel.compression
        return None


@cache
def _zeros() -> bytes:
    """Return a chunk of zeros, which goes compressed over any link: that costs nothing.

    Shared libraries of wheels are padded with them: of RDKit's 168 MB they are 38.
    """
    packed = zlib.compress(bytes(CHUNK), 9)
    return header(CHUNK, len(packed)) + packed


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
