"""What a call printed."""

from __future__ import annotations

# Of what a call prints, so much of its beginning and of its end is kept.
OUTPUT_KEPT = 64 << 10


class OutputLog:
    """What a call printed: its beginning and its end, and how much lay between."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes, dropped: int = 0) -> None:
        """Append what was printed, after ``dropped`` bytes that the node did not pass on."""
        if dropped:
            self._dropped += dropped + len(self._tail)
            self._tail.clear()
        room = OUTPUT_KEPT - len(self._head) if not self._dropped and not self._tail else 0
        self._head += data[:room]
        self._tail += data[room:]
        over = len(self._tail) - OUTPUT_KEPT
        if over > 0:
            self._dropped += over
            del self._tail[:over]

    def __str__(self) -> str:
        gap = f"\n... {self._dropped} bytes left out ...\n" if self._dropped else ""
        head = self._head.decode(errors="replace")
        return head + gap + self._tail.decode(errors="replace")
