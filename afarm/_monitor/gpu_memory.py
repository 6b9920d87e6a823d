"""The most memory that a call used of each GPU, out of what NVML tells of processes. Pure."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence

# GPUs that one call is believed to use at most; no machine has as many.
_MOST = 1024


class Peaks:
    """The peaks of one call."""

    def __init__(self) -> None:
        self._most: dict[int, int] = {}

    def look(self, used: Sequence[Mapping[int, int]], members: Collection[int]) -> bool:
        """Take in another look; return whether a peak has risen.

        Args:
            used: Of each GPU, the bytes that each process uses there.
            members: The call's processes.
        """
        risen = False
        for gpu, by_process in enumerate(used):
            # A GPU is used by few processes, a call may have thousands.
            now = sum(size for pid, size in by_process.items() if pid in members)
            if now > self._most.get(gpu, 0):
                self._most[gpu] = now
                risen = True
        return risen

    def pack(self) -> bytes:
        """Return the peaks for the wire: of each GPU that was used, in the driver's order."""
        return struct.pack(f"<{len(self._most)}q", *(self._most[gpu] for gpu in sorted(self._most)))


def unpack(packed: bytes) -> tuple[int, ...]:
    """Return the peaks out of `Peaks.pack`.

    Raises:
        ValueError: If it is something else.
    """
    count, rest = divmod(len(packed), 8)
    if rest or count > _MOST:
        raise ValueError(f"{len(packed)} bytes are no peaks of GPUs")
    return struct.unpack(f"<{count}q", packed)
