"""The order of queues and the rooms of nodes, against looking at all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afarm._core.category import Category
from afarm._core.grant import CORE, Grant
from afarm._core.invocation import Invocation
from afarm._core.node import Node
from afarm._core.order import Order
from afarm._core.packing import choices
from afarm._core.queues import Queue
from afarm._core.request import Request
from afarm._core.rooms import FEW, Rooms
from afarm.resources import Resources
from tests.core.driving import GIB

amounts = st.integers(1, 6)


def make_queue(rank: int = 0, cores: int = 1, memory: int = 1, environment: int = 1) -> Queue:
    profile = Request("f", environment=environment).profile
    queue = Queue((profile, None, None), Category("f"), {}, rank)
    queue.rank = (0.0, True, 0.0, float(rank), rank)
    queue.grant = Grant(Resources(cores=cores, memory=memory * GIB))
    return queue


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(amounts, amounts), max_size=200),
    st.data(),
)
def test_the_first_queue_that_fits_is_the_first_of_all_that_do(
    wanted: list[tuple[int, int]], data: st.DataObject
) -> None:
    queues = [make_queue(rank, *each) for rank, each in enumerate(wanted)]
    order = Order()
    for queue in data.draw(st.permutations(queues)):
        order.add(queue)
    for queue in data.draw(st.lists(st.sampled_from(queues), unique=True)) if queues else []:
        if data.draw(st.booleans()):
            order.remove(queue)
            queues.remove(queue)
        else:
            queue.grant = Grant(Resources(cores=data.draw(amounts), memory=GIB))
            order.resized(queue)
    assert list(order) == queues
    assert bool(order) == bool(queues)
    for _ in range(3):
        cores, memory = data.draw(amounts) * CORE, data.draw(amounts) * GIB
        after = data.draw(st.sampled_from([None, *[queue.rank for queue in queues]]))
        fitting = [
            queue
            for queue in queues
            if queue.grant is not None
            and queue.grant.cores <= cores
            and queue.grant.memory <= memory
            and (after is None or queue.rank > after)
        ]
        assert order.first_that_fits(after, cores, memory) is (fitting[0] if fitting else None)


sizes = st.builds(
    Resources, cores=amounts, memory=amounts.map(lambda n: n * GIB), gpus=st.sampled_from([0, 0, 1])
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=200), st.data())
def test_the_best_node_is_the_best_of_all_that_have_room(
    capacities: list[Resources], data: st.DataObject
) -> None:
    rooms = Rooms()
    nodes: list[Node] = []
    held: list[tuple[Node, Grant]] = []
    for number, capacity in enumerate(capacities):
        node = Node(f"n{number}")
        node.come_up(capacity)
        nodes.append(node)
        rooms.add(node)
    for _ in range(data.draw(st.integers(0, 20))):
        queue = make_queue(0, data.draw(amounts), data.draw(amounts), data.draw(st.integers(1, 3)))
        grant = queue.grant
        assert grant is not None
        for number in range(data.draw(st.integers(1, FEW + 3))):
            queue.waiting[number] = Invocation(number, Request("f"), 0.0)
        every = choices(zip(nodes, range(len(nodes)), strict=True), queue, grant)
        expected = min(every)[2] if every else None
        best = rooms.best(queue, grant)
        assert (None if best is None else best[2]) is expected
        assert [node for *_, node in rooms.choices(queue, grant)] == [node for *_, node in every]
        what = data.draw(st.sampled_from(["start", "start", "end", "lose", "return"]))
        if what == "start" and expected is not None:
            expected.take(grant)
            expected.environments.add(queue.profile.environment)
            rooms.started(expected, queue.profile.environment)
            held.append((expected, grant))
        elif what == "end" and held:
            node, grant = held.pop()
            node.give_back(grant)
            rooms.changed(node)
        elif what == "lose" and len(nodes) > 1:
            for node in nodes[:: data.draw(st.integers(1, 3))]:
                rooms.remove(node)
                nodes.remove(node)
            held = [each for each in held if each[0] in nodes]
        elif what == "return" and nodes:
            nodes.append(nodes.pop(0))
            rooms.add(nodes[-1])
    assert list(rooms) == nodes
