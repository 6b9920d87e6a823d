"""The farm's nodes together: which could ever hold something, and which is the largest."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import attrgetter

from ..errors import describe_amount
from ..resources import Resources
from .events import NodeName
from .grant import PACKED, amounts, capacity_amounts, within
from .node import Node, NodeState
from .request import Profile
from .rooms import Rooms


class _Sized:
    """A node whose capacity is known, in the order of sizes.

    Attributes:
        rank: The largest is the least; of equals, that which came first.
    """

    __slots__ = ("amounts", "came", "capacity", "node", "rank")

    def __init__(self, node: Node, capacity: Resources, came: int) -> None:
        self.node = node
        self.capacity = capacity
        self.came = came
        self.amounts = capacity_amounts(capacity)
        cores, memory, disk, gpus = self.amounts
        self.rank = (-memory, -cores, -disk, -gpus, came)


_rank = attrgetter("rank")


class Fleet:
    """The nodes by name.

    Attributes:
        up: Those on which something may start, in the order they came up.
        rooms: The same, by what is free on them.
        version: Rises whenever the answers of this class may change.
    """

    def __init__(self) -> None:
        self.nodes: dict[NodeName, Node] = {}
        self.up: dict[NodeName, Node] = {}
        self.rooms = Rooms()
        self.version = 0
        self._by_size: list[_Sized] = []  # whose capacity is known, the largest first
        self._sized: dict[NodeName, _Sized] = {}
        self._came = 0

    def changed(self, node: Node) -> None:
        """Take note that a node came, went, or changed its state."""
        self.version += 1
        if node.state is NodeState.UP:
            self.up[node.name] = node
            self.rooms.add(node)
        else:
            self.up.pop(node.name, None)
            self.rooms.remove(node)
        self._sort_in(node)
        if node.state is NodeState.GONE:
            del self.nodes[node.name]

    def _sort_in(self, node: Node) -> None:
        """Keep the order by size."""
        known = self._sized.pop(node.name, None)
        if node.state is NodeState.GONE or node.capacity is None:
            after = None
        elif known is not None and known.capacity is node.capacity:
            after = known
        else:
            self._came += 1
            after = _Sized(node, node.capacity, known.came if known else self._came)
        if known is not None and known is not after:
            del self._by_size[bisect_left(self._by_size, known.rank, key=_rank)]
        if after is not None:
            self._sized[node.name] = after
            if after is not known:
                insort(self._by_size, after, key=_rank)

    def largest(self, profile: Profile) -> Resources | None:
        """Return the capacity with the most memory that holds what is stated.

        Of the nodes that are up, if one of those does, else of all but those that drain.
        """
        wanted = amounts(profile.stated, 0)
        lost: Resources | None = None
        for sized in self._by_size if profile.node is None else self._pinned(profile.node):
            if within(wanted, sized.amounts):
                if sized.node.state is NodeState.UP:
                    return sized.capacity
                if lost is None and sized.node.state is not NodeState.DRAINING:
                    lost = sized.capacity
        return lost

    def _pinned(self, name: NodeName) -> tuple[_Sized, ...]:
        sized = self._sized.get(name)
        return () if sized is None else (sized,)

    def holders(self, profile: Profile) -> list[Node]:
        """Return the nodes whose capacity, now or when last up, holds what is stated."""
        wanted = amounts(profile.stated, 0)
        return [
            sized.node
            for sized in (self._by_size if profile.node is None else self._pinned(profile.node))
            if sized.node.state is not NodeState.DRAINING and within(wanted, sized.amounts)
        ]

    def why_never(self, profile: Profile) -> str:
        """Return why no node could ever hold what is stated, or "" while one still may."""
        if profile.node is not None:
            pinned = self.nodes.get(profile.node)
            if pinned is None:
                return f"the farm has no node named {profile.node!r}"
            if pinned.capacity is None or pinned.state is NodeState.DRAINING:
                return ""
        elif not self.up or any(node.state is NodeState.CONNECTING for node in self.nodes.values()):
            return ""
        if self.holders(profile):
            return ""
        return self._too_large(profile)

    def _candidates(self, profile: Profile) -> Iterable[Node]:
        if profile.node is None:
            return self.nodes.values()
        pinned = self.nodes.get(profile.node)
        return () if pinned is None else (pinned,)

    def _too_large(self, profile: Profile) -> str:
        known = [
            (node, capacity_amounts(node.capacity))
            for node in self._candidates(profile)
            if node.capacity is not None and node.state is not NodeState.DRAINING
        ]
        if not known:
            return "every node is about to leave the farm"
        for at, resource in enumerate(PACKED):
            wanted = amounts(profile.stated, 0)[at]
            node, have = max(known, key=lambda item: item[1][at])
            if wanted > have[at]:
                stated = getattr(profile.stated, resource)
                return (
                    f"it states {describe_amount(resource, stated)}"
                    f"{_of(resource)}, and the largest node, {node.name}, has "
                    f"{describe_amount(resource, getattr(node.capacity, resource))}"
                )
        return "no node has all that it states together, though each alone can be had"


def largest_of(nodes: Iterable[Node], resource: str = "memory") -> Node:
    """Return the node with the most of a resource; of equals, the one with more of the others.

    Raises:
        ValueError: If there are no nodes.
    """

    def size(node: Node) -> tuple[float, ...]:
        assert node.capacity is not None
        first = getattr(node.capacity, resource)
        cores, memory, disk, gpus = capacity_amounts(node.capacity)
        return math.inf if first is None else first, memory, cores, disk, gpus

    return max(nodes, key=size)


def most_of(nodes: Iterable[Node], resource: str) -> float:
    """Return the most of a resource that one of the nodes has; infinite where not limited."""
    most = 0.0
    for node in nodes:
        capacity = node.capacity
        have = None if capacity is None else getattr(capacity, resource)
        most = max(most, math.inf if have is None else have)
    return most


def stated_of(resources: Resources, resource: str) -> float | None:
    """Return one resource by its name."""
    amount: float | None = getattr(resources, resource)
    return amount


def _of(resource: str) -> str:
    return f" of {resource}" if resource in ("memory", "disk") else ""
