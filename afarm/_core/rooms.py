"""The nodes that are up, so that the best one with room is found without asking all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import attrgetter

from .grant import Grant
from .node import Node
from .packing import Choice, choices
from .queues import Queue

# Nodes of one block. With fewer, more blocks are asked in vain; with more, more nodes whose free
# cores and free memory are on different ones. 8 to 64 differ by a third (`benchmarks scale`).
_BLOCK = 32

# Where more than this wait for one allocation, the nodes that have room are put in order once;
# else the best is looked for each time.
FEW = 8

_cores, _memory, _gpus = attrgetter("cores"), attrgetter("memory"), attrgetter("gpus")
_load, _turnover = attrgetter("load"), attrgetter("turnover")


class _Block:
    """Nodes that came up one after the other.

    What is known of them are bounds: right when they were last looked at, and kept right when
    one of them has more room; one that has less may make them wider than need be.

    Attributes:
        nodes: With the numbers in which they came up.
        cores, memory: None has more free.
        load: None has less.
        environments: None has another one.
        wasteful: Whether each has a GPU that is free.
        turnover: None has a shorter one, in seconds.
        stale: Whether something was started on one of them since they were last looked at.
    """

    __slots__ = (
        "cores", "environments", "load", "memory", "nodes", "stale", "turnover", "wasteful",
    )  # fmt: skip

    def __init__(self) -> None:
        self.nodes: dict[Node, int] = {}
        self.environments: set[int] = set()
        self.cores = self.memory = -math.inf
        self.load = self.turnover = math.inf
        self.wasteful = True
        self.stale = False

    def look(self) -> None:
        """Find the bounds of what is free."""
        nodes = self.nodes
        self.cores = max(map(_cores, nodes))
        self.memory = max(map(_memory, nodes))
        self.load = min(map(_load, nodes))
        self.wasteful = min(map(_gpus, nodes)) > 0
        self.stale = False

    def note(self, node: Node) -> None:
        """Widen the bounds by what is so of one node now."""
        if node.cores > self.cores:
            self.cores = node.cores
        if node.memory > self.memory:
            self.memory = node.memory
        if node.load < self.load:
            self.load = node.load
        if node.gpus <= 0:
            self.wasteful = False
        turnover = node.turnover
        if turnover < self.turnover:
            self.turnover = turnover


class Rooms:
    """Nodes in the order they came up."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._block_of: dict[Node, _Block] = {}
        self._came = 0

    def add(self, node: Node) -> None:
        """Take a node that has come up, as the last."""
        self.remove(node)
        if not self._blocks or len(self._blocks[-1].nodes) >= _BLOCK:
            self._blocks.append(_Block())
        self._put(node, self._blocks[-1])

    def _put(self, node: Node, block: _Block) -> None:
        self._came += 1
        block.nodes[node] = self._came
        block.environments |= node.environments
        block.note(node)
        self._block_of[node] = block

    def remove(self, node: Node) -> None:
        """Take out a node that is up no more, if it was in here."""
        block = self._block_of.pop(node, None)
        if block is None:
            return
        del block.nodes[node]
        if not block.nodes:
            self._blocks.remove(block)
        if len(self._blocks) > 8 + 3 * len(self._block_of) // _BLOCK:
            self._gather()

    def _gather(self) -> None:
        """Fill the blocks up that have become small, as nodes came and went."""
        nodes = list(self)
        self._blocks.clear()
        for node in nodes:
            if not self._blocks or len(self._blocks[-1].nodes) >= _BLOCK:
                self._blocks.append(_Block())
            self._put(node, self._blocks[-1])

    def changed(self, node: Node) -> None:
        """Take note that a node has more room than before, or that something has ended there."""
        block = self._block_of.get(node)
        if block is not None:
            block.note(node)

    def started(self, node: Node, environment: int) -> None:
        """Take note that something of an environment was started on a node."""
        block = self._block_of[node]
        block.environments.add(environment)
        block.note(node)
        block.stale = True

    def __iter__(self) -> Iterator[Node]:
        for block in self._blocks:
            yield from block.nodes

    def least_turnover(self, grant: Grant) -> float:
        """Return the shortest turnover, in seconds, of the nodes that could ever hold a grant."""
        least = math.inf
        for block in sorted(self._blocks, key=_turnover):
            if block.turnover >= least:
                break
            block.turnover = min(map(_turnover, block.nodes))
            if block.turnover < least:
                for node in block.nodes:
                    if node.turnover < least and node.could_fit(grant):
                        least = node.turnover
        return least

    def choices(self, queue: Queue, grant: Grant) -> list[Choice]:
        """Return all nodes on which the queue's head could start now, with their scores."""
        found: list[Choice] = []
        for block in self._blocks:
            if grant.cores <= block.cores and grant.memory <= block.memory:
                here = choices(block.nodes.items(), queue, grant)
                found += here
                if not here:
                    block.look()
        return found

    def best(self, queue: Queue, grant: Grant) -> Choice | None:
        """Return the best node on which the queue's head could start now; see `packing.score`."""
        best: Choice | None = None
        environment, gpus = queue.profile.environment, grant.gpus
        cores, memory = grant.cores, grant.memory
        for block in self._blocks:
            if cores > block.cores or memory > block.memory:
                continue
            # Mostly it was the least loaded one on which something was started: as it was known,
            # the block would be asked again, in vain.
            looked = block.stale
            if looked:
                block.look()
                if cores > block.cores or memory > block.memory:
                    continue
            if best is not None and best[0] <= (
                environment not in block.environments,
                not gpus and block.wasteful,
                block.load,
            ):
                continue
            here = choices(block.nodes.items(), queue, grant)
            if not looked:
                block.look()
            if here:
                least = min(here)
                if best is None or least < best:
                    best = least
        return best
