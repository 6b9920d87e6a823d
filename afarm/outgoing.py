"""What is queued for one node: control messages, which go first, and bulk, stream by turns.

Sans-IO: time is an argument, what may leave now is returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ._wire import flow
from ._wire import messages as wire
from ._wire.frames import BULK, BULK_LIMIT, pack_header
from ._wire.payloads import Buffer
from .delivery import Delivery

if TYPE_CHECKING:
    from .environments import Bundle

# Bytes after which the rate that was measured says something of the link: by then the window has
# grown to what a link of 400 Mbit/s and 20 ms holds.
_TELLING = 1 << 20

# Bulk that leaves in one turn of the loop: the loop is not held up for longer than a few
# milliseconds, and what is written is still in the processor's cache when it leaves.
TURN = 512 << 10

# A stream that could send no more than so many bytes waits until it may send more.
_CRUMBS = 4096


class _Stream:
    """A blob or payload on its way out."""

    __slots__ = ("credit", "left", "pieces", "subject")

    def __init__(self, subject: int, pieces: Sequence[Buffer]) -> None:
        self.subject = subject
        self.pieces = deque(
            view for view in (memoryview(piece).cast("B") for piece in pieces) if len(view)
        )
        self.left = sum(map(len, self.pieces))
        self.credit = flow.CREDIT

    def take(self, most: int) -> list[memoryview]:
        """Return the next bytes, at most ``most``, without copying."""
        taken = []
        while most > 0 and self.pieces:
            piece = self.pieces[0]
            part = piece[:most]
            taken.append(part)
            most -= len(part)
            self.left -= len(part)
            self.credit -= len(part)
            if len(part) == len(piece):
                self.pieces.popleft()
            else:
                self.pieces[0] = piece[len(part) :]
        return taken


class Outgoing:
    """All that is to be sent over one connection.

    Args:
        wake: Called when bulk that was being waited for may be taken.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._control: list[bytes] = []
        self._streams: deque[_Stream | Delivery] = deque()
        self._by_subject: dict[int, _Stream] = {}
        self._pacer = flow.Pacer()
        self._delivery = Delivery(self._rate, self._resume)

    # --- what is added

    def message(self, message: wire.Message) -> None:
        """Queue a control message."""
        self._control.append(wire.encode(message))

    def bulk(self, subject: int, pieces: Sequence[Buffer]) -> None:
        """Queue the bytes of a blob or payload that was announced."""
        stream = _Stream(subject, pieces)
        if stream.left:
            self._by_subject[subject] = stream
            self._streams.append(stream)

    def bundle(self, blob: int, bundle: Bundle) -> bool:
        """Queue a bundle behind the others; return ``False`` if it is among them.

        Raises:
            OSError: If it cannot be read.
        """
        if blob in self._delivery:  # two environments of which it is a part lacked it
            return False
        self._delivery.add(blob, bundle)
        self.message(wire.Blob(blob, bundle.size, bundle.digest, "bundle", bundle.name))
        self._queue_delivery()
        return True

    def _queue_delivery(self) -> None:
        if self._delivery.left and self._delivery not in self._streams:
            self._streams.append(self._delivery)

    def _resume(self) -> None:
        self._queue_delivery()
        self._wake()

    def drop(self, subject: int) -> None:
        """Send no more of a payload: whoever was to have it is gone."""
        stream = self._by_subject.pop(subject, None)
        if stream is not None:
            self._streams.remove(stream)

    def close(self) -> None:
        """Send no more bulk at all."""
        self._streams.clear()
        self._by_subject.clear()
        self._delivery.close()

    # --- what the node says to it

    def acknowledged(self, total: int, at: float) -> bool:
        """Note how much bulk has arrived in all; return whether so much was sent."""
        return self._pacer.on_acknowledged(total, at)

    def round_trip(self, seconds: float) -> None:
        """Note how long a message and its answer took."""
        self._pacer.on_round_trip(seconds)

    def renew(self, subject: int, amount: int) -> bool:
        """Note that bytes of a stream were consumed; return whether more of it may go now."""
        stream = self._by_subject.get(subject)
        if stream is None:
            return self._delivery.renew(subject, amount)
        stream.credit += amount
        return True

    def answered(self, blob: int) -> None:
        """Note that the node has a bundle, or cannot have it."""
        self._delivery.answered(blob)

    # --- what leaves

    @property
    def sent(self) -> int:
        """Bytes of blobs and payloads that were sent."""
        return self._pacer.sent

    def _rate(self) -> float:
        """Return the link's rate in bytes/s, 0.0 before it is known.

        What is measured first is how fast the agent gets under way.
        """
        return self._pacer.rate if self._pacer.acknowledged >= _TELLING else 0.0

    def take(self, at: float, *, bulk: bool) -> tuple[list[bytes | memoryview], bool]:
        """Return what to write now, and whether more of it could leave in the next turn.

        Args:
            at: The time.
            bulk: Whether bulk may leave, too.
        """
        parts: list[bytes | memoryview] = []
        if self._control:
            parts.extend(self._control)
            self._control.clear()
        return parts, bulk and bool(self._streams) and self._take_bulk(parts, at)

    def _take_bulk(self, parts: list[bytes | memoryview], at: float) -> bool:
        """Add bulk that may be sent now; return whether more may be sent in the next turn."""
        allowed = self._pacer.allowance()
        room = min(allowed, TURN)
        # Slices that take a quarter of the window leave room for turns between streams.
        chunk = min(BULK_LIMIT, max(self._pacer.window // 4, 16 << 10))
        waiting = 0
        while room > 0 and waiting < len(self._streams):
            stream = self._streams.popleft()
            count = min(chunk, room, stream.credit, stream.left)
            if count < min(_CRUMBS, stream.left):
                # Without credit, or for crumbs: it gets its turn when there is room.
                self._streams.append(stream)
                waiting += 1
                continue
            waiting = 0
            parts.append(pack_header(BULK, stream.subject, count))
            parts.extend(stream.take(count))
            room -= count
            allowed -= count
            self._pacer.on_sent(count, at)
            if stream.left:
                self._streams.append(stream)
            elif isinstance(stream, _Stream):
                del self._by_subject[stream.subject]
        return waiting < len(self._streams) and allowed > 0
