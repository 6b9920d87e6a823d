"""From free room and waiting queues to an order and a placement. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import nsmallest
from itertools import islice
from operator import attrgetter

from ..resources import Seconds
from .grant import Grant
from .node import Node
from .queues import Group, Queue, Rank

# How long a queue's head is passed over before it goes before the others and a node is
# kept free for it: ten seconds, or five times what it takes until something ends on a
# node it could use, so that where calls take minutes a wait of minutes is nothing.
RESERVE_AFTER = Seconds(10.0)
TURNOVERS = 5.0

# How often nodes are chosen to be kept free: it costs a look at all that runs there.
RESERVE_EVERY = Seconds(1.0)

# How much work is sent to a node ahead of its room: enough for a round trip across
# continents (0.2 s is the longest that is usual, and the other half is under way), and
# little enough that a node which fails or a change of mind costs next to nothing.
QUEUE_AHEAD = Seconds(0.1)
MOST_QUEUED = 256  # on one node

# What did not move for so long is asked back, if there is room for it elsewhere.
STALLED_AFTER = Seconds(2 * QUEUE_AHEAD)

# How many better-placed queues are asked whether they need what a group would keep.
_ASKED = 16

# Among how many nodes the one with room soonest is looked for: all that runs on each
# of them is gone through.
_COMPARED = 32

Score = tuple[bool, bool, float]
Choice = tuple[Score, int, Node]


def rank(queue: Queue) -> Rank:
    """Return the queue's place in the order: the lowest is served first.

    Priority first; then those passed over for long, the longest first; then dominant
    share x expected wall time, the largest first, since what is large is hard to place
    late (longest processing time first, Graham 1969). A category of which nothing is
    known comes before the others: how the rest is packed depends on what it turns out
    to be. Work is compared in steps of the square root of two, so that a queue does not
    move with every measurement.
    """
    work = math.inf
    wall_time = queue.category.wall_time
    if wall_time is not None and queue.grant is not None:
        work = wall_time * queue.share
    step = work if math.isinf(work) else round(2 * math.log2(max(work, 1e-9)))
    since = queue.passed_since if queue.aged else 0.0
    return (-queue.profile.priority, not queue.aged, since, -step, queue.serial)


# A call may start on a node that is kept free if it is expected to take at most a fifth of the
# time until that is free: calls take longer than expected, and then hold up the large one. (With
# a half, or all of it, single traces took up to a third longer.)
_MUCH_SHORTER = 5.0


def may_use(queue: Queue, node: Node) -> bool:
    """Tell whether a reservation leaves the node to this queue.

    A reservation holds against its equals and those below: who has a higher priority
    is not held up by it.
    """
    reserved = node.reserved
    return (
        reserved is None
        or reserved is queue
        or may_go_before(queue, reserved)
        or fills_in(queue, node)
    )


def fills_in(queue: Queue, node: Node) -> bool:
    """Tell whether the queue's calls are over, as far as is known, before a node is free.

    What is kept free for a large call need not be idle until all of it is free (EASY
    backfilling; Lifka, "The ANL/IBM SP scheduling system", 1995).
    """
    wall_time = queue.category.wall_time
    return wall_time is not None and _MUCH_SHORTER * wall_time < node.spare


def reserve(node: Node, queue: Queue) -> None:
    """Keep a node free for a queue's head."""
    node.reserved, queue.reserved = queue, node
    node.blockers = frozenset(node.running)
    node.spare = 0.0


def look_ahead(node: Node, at: Seconds) -> None:
    """Find out how long it takes until a node is free for what it is reserved for.

    Only those count that ran there when it was reserved: who was let in since may be late, and
    lets in nobody else.
    """
    queue = node.reserved
    held = queue is not None and not node.blockers.isdisjoint(node.running)
    if held and queue is not None and queue.grant is not None:
        node.spare = wait_for_room(node, queue.grant, at)
        if math.isinf(node.spare):
            node.spare = 0.0
    else:
        node.spare = 0.0


def may_go_before(queue: Queue, reserved: Queue) -> bool:
    """Tell whether a queue may use what is kept free for another one."""
    return queue.profile.priority > reserved.profile.priority


def score(node: Node, queue: Queue, grant: Grant) -> Score:
    """Return how well the node suits the queue's head; the lowest is the best.

    Nodes that have its environment go first, then those without GPUs that it would
    leave idle, then the least loaded.
    """
    return (
        queue.profile.environment not in node.environments,
        not grant.gpus and node.gpus > 0,
        node.load,
    )


def choices(candidates: Iterable[tuple[Node, int]], queue: Queue, grant: Grant) -> list[Choice]:
    """Return the nodes on which the queue's head could start now, with their scores.

    Of equals the one with the lowest number is the best.
    """
    cores, memory, disk, gpus = grant.cores, grant.memory, grant.disk, grant.gpus
    whole = grant.whole_memory
    return [
        (score(node, queue, grant), number, node)
        for node, number in candidates
        if cores <= node.cores
        and memory <= node.memory
        and whole <= node.total[1]
        # Where nothing of ours runs it is not for us to wait: others may stay for ever.
        and not (node.pressed and node.running)
        and disk <= node.disk
        and gpus <= node.gpus
        and (node.reserved is None or may_use(queue, node))
    ]


def patience(turnover: float) -> Seconds:
    """Return how long a queue's head may be passed over; infinite if no node could hold it.

    Args:
        turnover: The shortest of the nodes that could, in seconds.
    """
    return Seconds(max(RESERVE_AFTER, TURNOVERS * turnover))


def soonest(queue: Queue, nodes: Iterable[Node], at: Seconds) -> Node | None:
    """Return the unreserved node where there will be room for its head first.

    Of many nodes only the least loaded are looked at.
    """
    grant = queue.grant
    if grant is None:
        return None
    able = [node for node in nodes if node.reserved is None and node.could_fit(grant)]
    if len(able) > _COMPARED:
        able = nsmallest(_COMPARED, able, key=attrgetter("load"))
    return min(able, key=lambda node: wait_for_room(node, grant, at), default=None)


def wait_for_room(node: Node, grant: Grant, at: Seconds) -> float:
    """Return the seconds until the node has room, if all that runs there takes as long as usual.

    What has run for longer than its category's expected wall time is expected to take
    as long again; so is what is the first of its category.
    """
    cores, memory = grant.cores - node.cores, grant.memory - node.memory
    disk, gpus = grant.disk - node.disk, grant.gpus - node.gpus
    if cores <= 0 and memory <= 0 and disk <= 0 and gpus <= 0:
        return 0.0
    ends = []
    for number, invocation in node.running.items():
        group = invocation.group
        assert group is not None
        if invocation.handed_on:
            continue
        elapsed = at - invocation.started
        expected = group.queue.category.wall_time or 0.0
        ends.append((expected - elapsed if expected > elapsed else elapsed, number, group.grant))
    ends.sort()
    for wait, _, freed in ends:
        cores -= freed.cores
        memory -= freed.memory
        disk -= freed.disk
        gpus -= freed.gpus
        if cores <= 0 and memory <= 0 and disk <= 0 and gpus <= 0:
            return wait
    return math.inf


def is_short(queue: Queue) -> bool:
    """Tell whether its calls are so short that some are sent ahead."""
    wall_time = queue.category.wall_time
    return wall_time is not None and wall_time <= QUEUE_AHEAD


def ahead_of(group: Group) -> int:
    """Return how many more of its queue may be sent ahead of the group's room."""
    wall_time = group.queue.category.wall_time
    if wall_time is None or wall_time > QUEUE_AHEAD or not group.running or not group.current:
        return 0
    if group.shrunk:
        return 0
    each = MOST_QUEUED if wall_time <= 0 else min(MOST_QUEUED, int(QUEUE_AHEAD / wall_time))
    return min(each * group.running - len(group.queued), MOST_QUEUED - group.node.queued)


def held_up(group: Group, order: Iterable[Queue]) -> bool:
    """Tell whether a queue with a better place could use what the group would go on holding."""
    node, queue = group.node, group.queue
    if node.reserved is not None and not may_use(queue, node):
        return True
    grant = group.grant
    for better in islice(order, _ASKED):
        if better is queue:
            return False
        wanted = better.grant
        if wanted is None or better.profile.node not in (None, node.name):
            continue
        lanes = group.running
        if (
            wanted.cores <= node.cores + lanes * grant.cores
            and wanted.memory <= node.memory + lanes * grant.memory
            and wanted.disk <= node.disk + lanes * grant.disk
            and wanted.gpus <= node.gpus + lanes * grant.gpus
        ):
            return True
    return False
