"""Bundles that are being compressed, each once for all connections that want it meanwhile.

A thread compresses a chunk at a time: who closes waits for no more than that, and each connection
has the chunks compressed in the order in which it needs them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .errors import DependencyError

if TYPE_CHECKING:
    from .environments import Bundle

log = logging.getLogger("afarm")

_under_way: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, Compression]]
_under_way = WeakKeyDictionary()


class Compression:
    """A bundle being compressed.

    Args:
        bundle: Which.
        quickly: Whether time counts for more than size.
    """

    def __init__(self, bundle: Bundle, *, quickly: bool) -> None:
        from .environments import QUICK, SMALL, Deflating

        self._bundle = bundle
        self._deflating = Deflating(bundle, QUICK if quickly else SMALL)
        self._step: asyncio.Task[None] | None = None
        self._users = 0
        self._among: dict[Path, Compression] = {}  # those of its loop

    @classmethod
    def of(cls, bundle: Bundle, *, quickly: bool) -> Compression:
        """Return the one of a bundle in the running loop; whoever has it releases it once."""
        under_way = _under_way.setdefault(asyncio.get_running_loop(), {})
        found = under_way.get(bundle.path)
        if found is None:
            found = under_way[bundle.path] = cls(bundle, quickly=quickly)
            found._among = under_way
        found._users += 1
        return found

    def release(self) -> None:
        """Have no more of it; without anyone who wants it, it is given up."""
        self._users -= 1
        if not self._users:
            del self._among[self._bundle.path]
            self._deflating.close()

    @property
    def ended(self) -> bool:
        """Whether no more chunks will be there."""
        return self._deflating.ended

    @property
    def there(self) -> int:
        """How many chunks are compressed."""
        return self._deflating.there

    def chunk(self, number: int) -> bytes | None:
        """Return a chunk as it travels; ``None``: it is not there."""
        return self._deflating.chunk(number)

    def step(self) -> Awaitable[None]:
        """Have the next chunk compressed; who else wants that meanwhile has the same one."""
        if self._step is None or self._step.done():
            self._step = asyncio.get_running_loop().create_task(self._advance())
        return asyncio.shield(self._step)

    async def _advance(self) -> None:
        try:
            await asyncio.to_thread(self._deflating.advance)
        except DependencyError as exc:
            log.debug("%s travels as it is: %s", self._bundle.name, exc)
