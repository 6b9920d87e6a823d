"""From what is stated and what a sizer says to the allocation of a queue's invocations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from ..resources import Resources
from .fleet import Fleet, largest_of, most_of, stated_of
from .grant import PACKED, Grant, capacity_amounts
from .node import NodeState
from .queues import Queue, Retry
from .sizers.base import Sizer

# How far the part that is charged may have moved before a grant is made anew.
_CHARGED_ANEW = 0.04


def size_queue(queue: Queue, fleet: Fleet, sizer: Sizer, charged: float = 1.0) -> bool:
    """Set what the queue's invocations get; return whether that changed.

    The queue's grant is ``None`` while no node is known that could hold what is stated.

    Args:
        queue: The queue.
        fleet: The nodes.
        sizer: Says what is needed where nothing is stated.
        charged: The part of predicted memory that a node is charged with at a start.
    """
    if queue.profile.stated.memory is not None or (
        queue.retry is not None and queue.retry.reserved
    ):
        charged = 1.0
    if queue.fleet_version != fleet.version:
        queue.fleet_version = fleet.version
        before, queue.largest = queue.largest, largest_capacity(queue, fleet)
        if queue.largest != before:
            queue.sized = None
    if queue.largest is None:
        changed = queue.grant is not None
        queue.grant = queue.sized = None
        return changed
    retry = queue.retry
    sized = sizer.allocate(
        queue.profile.category,
        queue.features,
        attempt=0 if retry is None else retry.tries,
        previous=None if retry is None else retry.previous,
        largest=queue.largest,
    )
    settled = abs(charged - queue.charged) <= _CHARGED_ANEW
    if settled and (sized is queue.sized or sized == queue.sized):
        return False
    queue.sized = sized
    if retry is None:
        allocation = allocate(queue.profile.stated, sized, queue.largest)
    else:
        allocation = allocate(
            queue.profile.stated, grow(retry, sized, queue.largest), queue.largest
        )
    changed = queue.grant is None or queue.grant.allocation != allocation or not settled
    grant = queue.grant
    if grant is None or changed:
        grant = queue.grant = Grant(allocation, charged)
        queue.charged = charged
    queue.share = grant.share(capacity_amounts(queue.largest))
    return changed


def largest_capacity(queue: Queue, fleet: Fleet) -> Resources | None:
    """Return the capacity that predictions for the queue are clamped to, or ``None``.

    That of the largest node that is up, so that nothing waits for a node that may never
    come back; of the others only where those that are up have proved too small.
    """
    if queue.retry is None:
        return fleet.largest(queue.profile)
    holders = fleet.holders(queue.profile)
    if not holders:
        return None
    usable = [node for node in holders if node.state is NodeState.UP]
    resource = queue.retry.resource
    before = stated_of(queue.retry.previous, resource)
    back_soon = [node for node in holders if node.state is not NodeState.SET_ASIDE]
    if before is not None and most_of(usable, resource) <= before < most_of(back_soon, resource):
        usable = back_soon
    return largest_of(usable or holders, resource).capacity


def allocate(stated: Resources, predicted: Resources, largest: Resources) -> Resources:
    """Return what is stated, else what is predicted and the largest node has; else one core."""
    if predicted.cores is None:
        predicted = replace(predicted, cores=1)
    clamped = Resources(
        cores=_least(predicted.cores, largest.cores),
        memory=_least(predicted.memory, largest.memory),
        disk=_least(predicted.disk, largest.disk),
        gpus=_least(predicted.gpus, largest.gpus),
        wall_time=predicted.wall_time,
        cpu_time=predicted.cpu_time,
        processes=predicted.processes,
    )
    return stated.over(clamped)


def grow(retry: Retry, sized: Resources, largest: Resources) -> Resources:
    """Return the allocation after one that did not do: only what ran out grows.

    It grows to what the sizer says, to twice what it was if that is no growth, and on
    the last try to all there is.
    """
    before = stated_of(retry.previous, retry.resource)
    if before is None:  # it was not limited by us
        return retry.previous
    most = stated_of(largest, retry.resource)
    wanted = stated_of(sized, retry.resource)
    if retry.last and most is not None:
        after = most
    elif wanted is None or wanted <= before:
        after = before * 2
    else:
        after = wanted
    if retry.resource not in ("cores", "wall_time", "cpu_time"):
        after = math.ceil(after)
    change: dict[str, Any] = {retry.resource: after}
    return replace(retry.previous, **change)


def can_grow(allocation: Resources, resource: str, queue: Queue, fleet: Fleet) -> bool:
    """Tell whether a node that is up or soon back could give more than the allocation did."""
    before = stated_of(allocation, resource)
    if before is None or resource not in PACKED:
        return True
    holders = fleet.holders(queue.profile)
    return before < most_of((n for n in holders if n.state is not NodeState.SET_ASIDE), resource)


_Amount = TypeVar("_Amount", int, float)


def _least(want: _Amount | None, most: _Amount | None) -> _Amount | None:
    return want if want is None or most is None else min(want, most)
