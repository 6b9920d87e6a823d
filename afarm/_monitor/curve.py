"""How a call's usage went over time, bounded in size whatever the duration. Pure.

Moments are kept at least a step apart. When there are too many, every second one goes and the
step doubles, so that a call of a minute and one of a week have about as many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..resources import Moment

MOST = 64
_STEP = 0.05
_PACKED = struct.Struct("<dqdq")


class Curve:
    """The curve of one call."""

    def __init__(self) -> None:
        self._moments: list[Moment] = []
        self._step = _STEP
        self._last: Moment | None = None

    def add(self, moment: Moment) -> None:
        """Add a moment; it is kept if the last one kept lies a step back.

        The memory of moments that are left out counts in the next: a peak stays one.
        """
        if self._last is not None and self._last.memory > moment.memory:
            moment = moment._replace(memory=self._last.memory)
        if self._moments and moment.time - self._moments[-1].time < self._step:
            self._last = moment
            return
        self._last = None
        self._moments.append(moment)
        if len(self._moments) >= MOST:
            kept = self._moments[1::2]
            dropped = self._moments[::2]
            self._moments = [
                after._replace(memory=max(before.memory, after.memory))
                for before, after in zip(dropped, kept, strict=True)
            ]
            self._step *= 2

    def moments(self) -> Sequence[Moment]:
        """Return what is kept, and the last moment."""
        return [*self._moments, self._last] if self._last is not None else list(self._moments)

    def pack(self) -> bytes:
        """Return the moments for the wire."""
        return b"".join(_PACKED.pack(*moment) for moment in self.moments())


def unpack(packed: bytes) -> tuple[Moment, ...]:
    """Return the moments out of `Curve.pack`.

    Raises:
        ValueError: If it is none.
    """
    if len(packed) % _PACKED.size or len(packed) > _PACKED.size * (MOST + 1):
        raise ValueError(f"{len(packed)} bytes are no curve")
    return tuple(Moment(*each) for each in _PACKED.iter_unpack(packed))
