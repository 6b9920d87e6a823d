"""How much bulk may be on its way, so that nothing urgent waits behind it.

Bytes that were sent and not acknowledged lie in some queue: ours, the kernel's, the
network's. A control frame sent now arrives after all of them. `Pacer` keeps them under
what the connection carries in its least round trip and `QUEUE` seconds.

Sans-IO, standard library only; used at both ends. Time is an argument.
"""

from __future__ import annotations

from collections import deque

# How long a control frame may have to wait behind bulk. A kill is to arrive within half
# a second on any link; the least round trip of the link comes on top.
QUEUE = 0.1

# Below this a link cannot be kept busy, since acknowledgements come each ACK_EVERY bytes.
LEAST_WINDOW = 128 << 10

# Above this a longer queue gains nothing on any link that was measured, and both ends
# would hold the memory.
LARGEST_WINDOW = 16 << 20

# A receiver acknowledges after so many bytes, and at the end of each payload.
ACK_EVERY = 32 << 10

# What the receiver of one blob or payload takes before it has passed any of it on.
CREDIT = 4 << 20

# For how long the fastest delivery and the shortest round trip seen are believed.
MEMORY = 10.0


class Pacer:
    """What one end may send of bulk, from what the other end has acknowledged.

    The delivery rate is measured as in BBR (Cardwell et al., ACM Queue 14(5), 2016): bytes
    acknowledged between the sending and the acknowledgement of one mark, over that time.
    The window is that rate times the least round trip plus `QUEUE`; since it is more
    than the link holds, the rate rises by itself where there is room.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.window = LEAST_WINDOW
        # (sent so far, when, acknowledged by then), one mark per ACK_EVERY bytes
        self._marks: deque[tuple[int, float, int]] = deque()
        self._rates: deque[tuple[float, float]] = deque()  # (when, bytes/s), falling
        self._trips: deque[tuple[float, float]] = deque()  # (when, s), rising

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
            _keep(self._rates, at, (total - acknowledged_then) / trip, rising=False)
            _keep(self._trips, at, trip, rising=True)
            wanted = self._rates[0][1] * (self._trips[0][1] + QUEUE)
            self.window = int(min(max(wanted, LEAST_WINDOW), LARGEST_WINDOW))
        return True


def _keep(extremes: deque[tuple[float, float]], at: float, value: float, *, rising: bool) -> None:
    """Add to a sliding minimum (rising) or maximum over `MEMORY`; the extreme comes first."""
    while extremes and (extremes[-1][1] >= value) == rising and extremes[-1][1] != value:
        extremes.pop()
    extremes.append((at, value))
    while extremes[0][0] < at - MEMORY:
        extremes.popleft()
