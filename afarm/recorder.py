"""What is told of each call to whoever keeps a record of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ._wire.payloads import Buffer

if TYPE_CHECKING:
    from .call import Call


class Recorder(Protocol):
    """Hears of a farm's calls, on its loop; must not wait."""

    def submitted(self, call: Call) -> None:
        """A call was taken."""

    def started(self, call: Call) -> None:
        """An attempt was given to a node."""

    def ended(self, call: Call) -> None:
        """A call is over: its future is resolved, its attempts are complete."""

    async def recall(self, call: Call) -> Sequence[Buffer] | None:
        """Return the result of a call that was made before, if it may be used again."""

    async def keep(self, call: Call, parts: Sequence[Buffer]) -> None:
        """Keep a result, before anybody can change its buffers."""
