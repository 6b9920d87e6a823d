from __future__ import annotations

import itertools

import pytest

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.grant import Grant
from afarm._core.node import (
    ASIDE_BACKOFF,
    NODE_TRANSITIONS,
    Node,
    NodeState,
    NodeStep,
)
from afarm.errors import LocalProtocolError
from afarm.resources import Resources
from tests.core.driving import GIB, TWO_CORES, Driver, of


@pytest.mark.parametrize(("state", "step"), list(itertools.product(NodeState, NodeStep)))
def test_a_step_leads_where_the_table_says_or_is_an_error_naming_both(
    state: NodeState, step: NodeStep
) -> None:
    node = Node("gpu3")
    node.state = state
    after = NODE_TRANSITIONS.get((state, step))
    if after is not None:
        node.step(step)
        assert node.state is after
    else:
        with pytest.raises(LocalProtocolError, match=f"gpu3 is {state.value}: '{step.value}'"):
            node.step(step)
        assert node.state is state


def up(capacity: Resources = TWO_CORES) -> Node:
    node = Node("a")
    node.come_up(capacity)
    return node


def test_ten_tenths_of_a_core_fill_it_and_leave_nothing_behind() -> None:
    node = up(Resources(cores=1))
    tenth = Grant(Resources(cores=0.1))
    for _ in range(10):
        assert node.fits(tenth)
        node.take(tenth)
    assert not node.fits(tenth)
    for _ in range(10):
        node.give_back(tenth)
    assert node.view().in_use == Resources(cores=0, memory=0, disk=0, gpus=0)
    assert node.fits(Grant(Resources(cores=1)))


def test_what_a_node_does_not_say_is_not_limited() -> None:
    node = up(Resources(cores=1))
    huge = Grant(Resources(cores=1, memory=1 << 50, disk=1 << 60, gpus=8))
    assert node.fits(huge)
    assert node.places(huge) == 1
    node.take(huge)
    node.give_back(huge)
    assert node.places(huge) == 1


@pytest.mark.parametrize("resource", ["cores", "memory", "disk", "gpus"])
def test_each_resource_can_be_what_does_not_fit(resource: str) -> None:
    node = up(Resources(cores=4, memory=4, disk=4, gpus=4))
    assert node.fits(Grant(Resources(**{resource: 4})))
    assert not node.fits(Grant(Resources(**{resource: 5})))
    assert not node.could_fit(Grant(Resources(**{resource: 5})))


def test_who_wants_no_cores_still_takes_a_thousandth_of_one() -> None:
    assert up(Resources(cores=1)).places(Grant(Resources(cores=0))) == 1000


def delays(farm: Driver, failures: int) -> list[float]:
    found = []
    for _ in range(failures):
        (connect,) = of(farm.tell(event.NodeFailed("a", "refused", farm.at)), do.Connect)
        assert isinstance(connect, do.Connect)
        found.append(connect.delay)
    return found


def test_a_node_that_fails_is_tried_again_later_and_later_and_then_set_aside() -> None:
    farm = Driver()
    farm.tell(event.AddNode("a", 0.0))
    found = delays(farm, 7)
    expected = [1, 2, 4, 8, ASIDE_BACKOFF, ASIDE_BACKOFF, ASIDE_BACKOFF]
    assert found == pytest.approx(expected, rel=0.126)
    view = farm.state.node_view("a")
    assert view.state is NodeState.SET_ASIDE
    assert view.reason == "set aside; failed attempts since it was last up: 7; the last: refused"


def test_backoff_is_jittered_and_the_same_in_equal_runs() -> None:
    def first_delay(name: str) -> float:
        farm = Driver()
        farm.tell(event.AddNode(name, 0.0))
        (connect,) = of(farm.tell(event.NodeFailed(name, "refused", 0.0)), do.Connect)
        assert isinstance(connect, do.Connect)
        return connect.delay

    assert len({first_delay(f"n{i}") for i in range(20)}) == 20
    assert first_delay("a") == first_delay("a")
    assert all(0.875 <= first_delay(f"n{i}") <= 1.125 for i in range(20))


def test_a_node_lost_three_times_within_ten_minutes_is_set_aside_and_may_come_back() -> None:
    farm = Driver("a")
    for _ in range(2):
        farm.lose("a")
        assert farm.state.node_view("a").state is NodeState.LOST
        farm.at += 100
        farm.tell(event.NodeUp("a", TWO_CORES, farm.at))
    farm.lose("a")
    assert farm.state.node_view("a").state is NodeState.SET_ASIDE
    assert "3 losses within 10 minutes; the last: cut" in farm.state.node_view("a").reason
    farm.tell(event.NodeUp("a", TWO_CORES, farm.at))
    assert farm.state.node_view("a").state is NodeState.UP
    assert farm.state.node_view("a").reason == ""


def test_losses_further_apart_than_ten_minutes_set_nothing_aside() -> None:
    farm = Driver("a")
    for _ in range(6):
        farm.at += 301
        farm.lose("a")
        farm.tell(event.NodeUp("a", TWO_CORES, farm.at))
        assert farm.state.node_view("a").state is NodeState.UP


def test_a_node_that_comes_up_starts_its_failures_anew() -> None:
    farm = Driver()
    farm.tell(event.AddNode("a", 0.0))
    delays(farm, 4)
    farm.tell(event.NodeUp("a", TWO_CORES, 0.0))
    farm.lose("a")
    assert delays(farm, 1) == pytest.approx([1], rel=0.126)


def test_a_view_says_what_is_in_use() -> None:
    farm = Driver("a")
    farm.call(Resources(cores=0.5, memory=GIB))
    farm.call(Resources(cores=1, disk=5 * GIB, memory=GIB))
    view = farm.state.node_view("a")
    assert view.in_use == Resources(cores=1.5, memory=2 * GIB, disk=5 * GIB, gpus=0)
    assert (view.running, view.queued, view.capacity) == (2, 0, TWO_CORES)
