"""How much bulk may be on its way, so that nothing urgent waits behind it.

Bytes that were sent and not acknowledged lie in some queue: ours, the kernel's, the
network's. A control frame sent now arrives after all of them. `Pacer` keeps them under
what the connection carries in its least round trip, half of another, and `QUEUE` seconds.

Sans-IO, standard library only; used at both ends. Time is an argument.
"""

from __future__ import annotations

from collections import deque

# How long a control frame may have to wait behind bulk, but for half a round trip. A kill is
# to arrive within half a second on any link, and what is below us takes its part: TCP with BBR
# sends next to nothing for 0.2 s in each 10.
QUEUE = 0.05

# The part of a round trip that is queued besides: so much more is sent in each trip while there
# is room, which fills a long link within seconds.
GROWTH = 0.5

# Below this a link cannot be kept busy, since acknowledgements come each ACK_EVERY bytes.
LEAST_WINDOW = 128 << 10

# Above this a longer queue gains nothing on any link that was measured, and both ends
# would hold the memory.
LARGEST_WINDOW = 16 << 20

# A receiver acknowledges after so many bytes, but at most so often (s), and at the end of each
# payload. Each acknowledgement over SSH costs both ends what 32 KiB of bulk cost, and at
# 400 MB/s there would be 12,000 a second.
ACK_EVERY = 32 << 10
ACK_PAUSE = 0.002

# What the receiver of one blob or payload takes before it has passed any of it on.
CREDIT = 4 << 20

# It renews the sender's credit in steps of this size.
CREDIT_STEP = CREDIT // 8

# For how long the fastest delivery seen is believed.
MEMORY = 10.0


class Receipt:
    """What one end has received of bulk, and when it has to say so."""

    def __init__(self) -> None:
        self.received = 0
        self._acknowledged = 0
        self._at = -ACK_PAUSE

    @property
    def due(self) -> int:
        """Bytes that were received and not acknowledged."""
        return self.received - self._acknowledged

    def wait(self, now: float) -> float | None:
        """Return in how many seconds to acknowledge, or ``None``: not before more has come."""
        if self.due < ACK_EVERY:
            return None
        return max(0.0, self._at + ACK_PAUSE - now)

    def acknowledge(self, now: float) -> int:
        """Return what to acknowledge now."""
        self._at = now
        self._acknowledged = self.received
        return self.received


class Pacer:
    """What one end may send of bulk, from what the other end has acknowledged.

    The delivery rate is measured as in BBR (Cardwell et al., ACM Queue 14(5), 2016): bytes
    acknowledged between the sending and the acknowledgement of one mark, over that time.
    The window is that rate times the least round trip and the queue; since it is more
    than the link holds, the rate rises by itself where there is room.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.window = LEAST_WINDOW
        # (sent so far, when, acknowledged by then), one mark per ACK_EVERY bytes
        self._marks: deque[tuple[int, float, int]] = deque()
        self._rates: deque[tuple[float, float]] = deque()  # (when, bytes/s), falling
        # The least round trip of the connection's whole life: once bulk runs, every
        # trip includes its queue, so that a sliding minimum would grow with the window.
        self._trip = 1.0

    @property
    def rate(self) -> float:
        """The fastest delivery of the last while in bytes/s; 0.0 before the first is known."""
        return self._rates[0][1] if self._rates else 0.0

    def allowance(self) -> int:
        """Return how many bytes of bulk may be sent now; never negative."""
        return max(0, self.window - (self.sent - self.acknowledged))

    def on_sent(self, count: int, at: float) -> None:
        """Note that bulk was sent."""
        self.sent += count
        if not self._marks or self.sent - self._marks[-1][0] >= ACK_EVERY:
            self._marks.append((self.sent, at, self.acknowledged))

    def on_acknowledged(self, total: int, at: float) -> bool:
        """Note that the other end has received ``total`` bytes; return whether that is possible."""
        if total > self.sent or total < self.acknowledged:
            return False
        self.acknowledged = total
        mark = None
        while self._marks and self._marks[0][0] <= total:
            mark = self._marks.popleft()
        if mark is not None:
            _, sent_at, acknowledged_then = mark
            trip = max(at - sent_at, 1e-6)
            self._note_rate(at, (total - acknowledged_then) / trip)
            self.on_round_trip(trip)
            wanted = self._rates[0][1] * ((1 + GROWTH) * self._trip + QUEUE)
            self.window = int(min(max(wanted, LEAST_WINDOW), LARGEST_WINDOW))
        return True

    def on_round_trip(self, trip: float) -> None:
        """Note a round trip, measured by any message and its answer."""
        self._trip = min(self._trip, trip)

    def _note_rate(self, at: float, rate: float) -> None:
        """Keep the sliding maximum of the rate over `MEMORY`; the largest comes first."""
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((at, rate))
        while self._rates[0][0] < at - MEMORY:
            self._rates.popleft()
