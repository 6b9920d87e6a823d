"""The queues in which someone waits, by rank, so that who fits is found without asking all."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from .queues import Queue, Rank

# Queues of one block: with a thousand queues, as many as there are blocks.
_BLOCK = 32

_rank = attrgetter("rank")
_last = attrgetter("last")


class _Block:
    """Queues that follow each other.

    Attributes:
        last: The rank of the last of them.
        cores, memory: None of them wants less; what they do want may be more.
    """

    __slots__ = ("cores", "last", "memory", "queues")

    def __init__(self, queues: list[Queue]) -> None:
        self.queues = queues
        self.look()

    def look(self) -> None:
        """Find out what they want at least."""
        self.last = self.queues[-1].rank
        self.cores = self.memory = math.inf
        for queue in self.queues:
            self.note(queue)

    def note(self, queue: Queue) -> None:
        """Take account of what one of them wants."""
        grant = queue.grant
        if grant is not None:
            if grant.cores < self.cores:
                self.cores = grant.cores
            if grant.memory < self.memory:
                self.memory = grant.memory


class Order:
    """Queues by rank, lowest first; a queue's rank changes only while it is not in here."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def __iter__(self) -> Iterator[Queue]:
        for block in self._blocks:
            yield from block.queues

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def add(self, queue: Queue) -> None:
        """Put a queue in its place."""
        if not self._blocks:
            self._blocks.append(_Block([queue]))
            return
        at = min(self._find(queue), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block.queues, queue, key=_rank)
        block.last = block.queues[-1].rank
        block.note(queue)
        if len(block.queues) > 2 * _BLOCK:
            self._blocks[at : at + 1] = [
                _Block(block.queues[:_BLOCK]), _Block(block.queues[_BLOCK:])
            ]  # fmt: skip

    def remove(self, queue: Queue) -> None:
        """Take a queue out."""
        at = self._find(queue)
        block = self._blocks[at]
        del block.queues[bisect_left(block.queues, queue.rank, key=_rank)]
        if block.queues:
            block.last = block.queues[-1].rank
        else:
            del self._blocks[at]

    def resized(self, queue: Queue) -> None:
        """Take note that a queue in here has another grant."""
        self._blocks[self._find(queue)].note(queue)

    def first_that_fits(self, after: Rank | None, cores: float, memory: float) -> Queue | None:
        """Return the first queue behind a rank whose grant takes no more than this.

        Args:
            after: The rank; ``None``: from the beginning.
            cores: The most that are free anywhere, as in `Grant`.
            memory: The same of memory.
        """
        blocks = self._blocks
        begin = 0 if after is None else bisect_left(blocks, after, key=_last)
        for at in range(begin, len(blocks)):
            block = blocks[at]
            if block.cores > cores or block.memory > memory:
                continue
            for queue in block.queues:
                grant = queue.grant
                if (
                    grant is not None
                    and grant.memory <= memory
                    and grant.cores <= cores
                    and (after is None or queue.rank > after)
                ):
                    return queue
            block.look()
        return None

    def _find(self, queue: Queue) -> int:
        """Return the number of the block where a queue is, or belongs."""
        return bisect_left(self._blocks, queue.rank, key=_last)
