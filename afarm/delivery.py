"""The bundles of one connection on their way out, in the order in which they are needed.

First of each what is no module, then of each the modules that importing it reads, then the
rest: so importing can begin when a third of scikit-learn's closure is there. Meanwhile the
link's rate becomes known; where compressing pays, what is sent next is compressed.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ._wire import flow
from ._wire.chunks import CHUNK, HEADER, header
from .errors import DependencyError

if TYPE_CHECKING:
    from .environments import Bundle, Deflated

log = logging.getLogger("afarm")

_under_way: dict[tuple[int, Path], asyncio.Task[Deflated | None]] = {}

# Bytes/s, a link's rate above which bundles go as they are. Level 1 leaves a third of them, so
# that inflating, verifying and writing them (some 150 MB/s in one process of a node) would be
# what takes time from a third of that on: 400 Mbit/s.
PAYS = 50e6


class _Parcel:
    """One bundle on its way."""

    __slots__ = (
        "bundle", "content", "credit", "marks", "packed", "places", "sent", "subject", "tried",
    )  # fmt: skip

    def __init__(self, subject: int, bundle: Bundle) -> None:
        self.subject = subject
        self.bundle = bundle
        self.content = _map(bundle.path)
        self.marks = (bundle.data, max(bundle.data, bundle.head), bundle.size)
        self.sent = 0  # bytes of its content
        self.credit = flow.CREDIT
        self.packed: memoryview | None = None
        self.places: list[int] = []  # of chunks in `packed`
        self.tried = False  # to compress it

    def take_packed(self, path: Path) -> None:
        """Have its compressed chunks at hand."""
        packed = _map(path)
        at = 0
        places = []
        while at < len(packed):
            places.append(at)
            at += HEADER.size + HEADER.unpack_from(packed, at)[1]
        self.packed, self.places = packed, places

    def chunk(self, *, packed: bool) -> list[memoryview]:
        """Return the next chunk, compressed if wanted and at hand; it counts as sent."""
        size = min(CHUNK, len(self.content) - self.sent)
        number = self.sent // CHUNK
        begin, self.sent = self.sent, self.sent + size
        if packed and self.packed is not None:
            at = self.places[number]
            end = self.places[number + 1] if number + 1 < len(self.places) else len(self.packed)
            return [self.packed[at:end]]
        return [memoryview(header(size, size)), self.content[begin : self.sent]]


class Delivery:
    """All bundles that are to go to one node; for its link, one stream of bytes.

    Args:
        rate: Returns the link's rate in bytes/s, 0.0 as long as it is not known.
    """

    def __init__(self, rate: Callable[[], float]) -> None:
        self._rate = rate
        self._parcels: dict[int, _Parcel] = {}  # in the order in which they are needed
        self._current: _Parcel | None = None
        self._pieces: deque[memoryview] = deque()
        self._compressing: asyncio.Task[None] | None = None
        self._unanswered: set[int] = set()
        self.left = 0  # bytes of the present chunk; 0: nothing is on its way

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
        if self._compressing is not None:
            self._compressing.cancel()

    def _load(self) -> None:
        """Make the next chunk the present one."""
        parcel = self._current
        if parcel is not None and parcel.sent == len(parcel.content):
            self._parcels.pop(parcel.subject, None)
        self._current = parcel = self._next()
        if parcel is None:
            return
        slow = 0 < self._rate() < PAYS
        if slow and self._compressing is None and self._untried():
            self._compressing = asyncio.get_running_loop().create_task(self._compress())
        self._pieces.extend(parcel.chunk(packed=slow))
        self.left = sum(map(len, self._pieces))

    def _next(self) -> _Parcel | None:
        for part in range(3):
            for parcel in self._parcels.values():
                if parcel.sent < parcel.marks[part]:
                    return parcel
        return None

    def _untried(self) -> list[_Parcel]:
        return [parcel for parcel in self._parcels.values() if not parcel.tried]

    async def _compress(self) -> None:
        """Compress what is still to be sent, in the order in which that is needed."""
        while waiting := self._untried():
            parcel = waiting[0]
            parcel.tried = True
            try:
                deflated = await _deflate(parcel.bundle)
                if deflated is not None:
                    parcel.take_packed(deflated.path)
            except (DependencyError, OSError) as exc:
                log.debug("%s travels as it is: %s", parcel.bundle.name, exc)
        self._compressing = None


async def _deflate(bundle: Bundle) -> Deflated | None:
    """Compress a bundle in a thread, once for all connections that want it meanwhile."""
    from .environments import deflate

    loop = asyncio.get_running_loop()
    key = id(loop), bundle.path
    task = _under_way.get(key)
    if task is None:
        task = _under_way[key] = loop.create_task(asyncio.to_thread(deflate, bundle))
        task.add_done_callback(lambda _: _under_way.pop(key))
    return await asyncio.shield(task)


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
