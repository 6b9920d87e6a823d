"""Calls sent ahead of their room, taken over, returned and recalled."""

from __future__ import annotations

import pytest

from afarm._core import events as event
from afarm._core.actions import Completion, Kill, Recall, Start, WakeAt
from afarm._core.invocation import State
from afarm._core.packing import MOST_QUEUED, QUEUE_AHEAD, STALLED_AFTER
from afarm._core.request import Request
from afarm.errors import RemoteProtocolError
from afarm.resources import Resources, Usage
from tests.core.driving import GIB, ONE_CORE, TWO_CORES, Driver, of, started

ONE_LANE = Resources(cores=1, memory=8 * GIB)
SHORT = Request("f", ONE_CORE)


def with_queue(*nodes: str, count: int, wall: float = 0.01, capacity: Resources = ONE_LANE):
    """Return a farm whose nodes run a short call each, the next ones queued behind them."""
    farm = Driver(*nodes, capacity=capacity)
    farm.learn(wall=wall)
    return farm, farm.submit(SHORT, count)


def test_short_calls_are_sent_ahead_of_their_room_in_order() -> None:
    farm, (first, *rest) = with_queue("a", count=5)
    assert not farm.starts[first].queued
    assert all(farm.starts[number].queued for number in rest)
    assert {start.group for start in farm.starts.values() if start.queued} == {
        farm.starts[first].group
    }
    assert farm.state.counts().queued == 4


def test_those_who_come_later_are_sent_ahead_at_once() -> None:
    farm, _ = with_queue("a", count=1)
    later = farm.submit(SHORT, 3)
    assert all(farm.starts[number].queued for number in later)


def test_no_more_is_sent_ahead_than_a_tenth_of_a_second_of_work() -> None:
    wall = 0.01
    farm, _ = with_queue("a", count=100, wall=wall)
    assert farm.state.node_view("a").queued == QUEUE_AHEAD / wall


def test_each_lane_gets_its_share_of_what_is_sent_ahead() -> None:
    farm, _ = with_queue("a", count=100, capacity=TWO_CORES)
    assert farm.state.node_view("a").queued == 20


def test_no_more_is_sent_ahead_than_a_node_is_to_hold() -> None:
    farm, _ = with_queue("a", count=1000, wall=0.0)
    assert farm.state.node_view("a").queued == MOST_QUEUED


def test_long_calls_and_those_nobody_knows_are_not_sent_ahead() -> None:
    farm, _ = with_queue("a", count=10, wall=0.11)
    assert farm.state.node_view("a").queued == 0
    farm.submit(Request("unknown", ONE_CORE), 10)
    assert farm.state.node_view("a").queued == 0


def test_what_may_run_at_most_once_is_not_sent_ahead() -> None:
    farm = Driver("a", capacity=ONE_LANE)
    farm.learn(wall=0.01)
    farm.submit(Request("f", ONE_CORE, retries=0), 5)
    assert farm.state.node_view("a").queued == 0


def test_nothing_is_sent_ahead_while_there_is_room() -> None:
    farm, numbers = with_queue("a", "b", count=2)
    assert not any(farm.starts[number].queued for number in numbers)


def test_the_next_of_its_group_inherits_the_allocation() -> None:
    farm, (first, second, third) = with_queue("a", count=3)
    assert farm.state.node_view("a").queued == 2
    farm.finish(first, next=second, wall=0.01)
    assert farm.state.node_view("a").queued == 1
    view = farm.state.invocation_view(second)
    assert (view.state, view.allocation) == (State.RUNNING, ONE_CORE)
    assert farm.state.node_view("a").in_use.cores == 1
    farm.finish(second, next=third, wall=0.01)
    farm.finish(third, wall=0.01)
    assert farm.state.is_empty
    assert farm.state._dispatcher.is_empty


def test_what_was_consumed_is_sent_again() -> None:
    farm, numbers = with_queue("a", count=100)
    actions = farm.finish(numbers[0], next=numbers[1], wall=0.01)
    assert started(actions, queued=True) == [numbers[11]]


def test_a_returned_one_goes_to_the_front_at_no_cost() -> None:
    farm, numbers = with_queue("a", count=30)
    farm.finish(numbers[0], wall=0.01)  # the agent had not heard of those queued
    assert farm.node_of(numbers[11]) == "a"
    farm.tell(*(event.Returned(number, 1, 0.0) for number in numbers[1:11]))
    assert farm.state.invocation_view(numbers[1]).retries_used == 0
    farm.finish(numbers[11], wall=0.01)
    assert farm.attempt(numbers[1]) == 2


def test_cancelled_while_queued_it_is_complete_when_the_agent_says_so() -> None:
    farm, (_, second, third) = with_queue("a", count=3)
    assert farm.tell(event.Cancel(second, 0.0)) == [Kill(second, 1, "a", evicted=False)]
    assert farm.outcome(second) is None
    farm.returned(second)
    assert farm.outcome(second) is Completion.CANCELLED
    farm.tell(event.Cancel(third, 0.0))
    farm.killed(third)
    assert farm.outcome(third) is Completion.CANCELLED


def test_cancelled_while_queued_it_may_still_take_over_and_then_holds_its_room() -> None:
    farm, (first, second) = with_queue("a", count=2)
    farm.tell(event.Cancel(second, 0.0))
    farm.finish(first, next=second)
    assert farm.state.invocation_view(second).state is State.KILLING
    assert farm.state.node_view("a").in_use.cores == 1
    farm.killed(second)
    assert farm.outcome(second) is Completion.CANCELLED
    assert farm.state.node_view("a").in_use.cores == 0


def test_queued_ones_of_a_lost_node_cost_no_retry() -> None:
    farm, (first, second) = with_queue("a", count=2)
    farm.lose("a")
    assert farm.state.counts().waiting == 2
    assert farm.state.invocation_view(first).retries_used == 1
    assert farm.state.invocation_view(second).retries_used == 0


def test_a_queued_one_whose_needs_could_not_be_sent_fails_without_freeing_anything() -> None:
    farm, (_, second) = with_queue("a", count=2)
    farm.fail(second)
    assert farm.outcome(second) is Completion.FAILED
    assert farm.state.node_view("a").in_use.cores == 1


def test_a_queued_one_cannot_return_a_result() -> None:
    farm, (_, second) = with_queue("a", count=2)
    with pytest.raises(RemoteProtocolError, match="ended, but is queued"):
        farm.finish(second)


def test_what_is_stuck_behind_a_long_one_is_recalled_when_there_is_room() -> None:
    farm, (first, second, third) = with_queue("a", count=3)
    farm.add("b", ONE_LANE)  # it comes while the first takes longer than ever
    farm.tick(STALLED_AFTER / 2)
    assert farm.state.invocation_view(second).state is State.QUEUED
    actions = farm.tick(STALLED_AFTER / 2)
    assert of(actions, Recall) == [Recall(second, 1, "a")]  # there is room for one
    farm.returned(second)
    assert (farm.node_of(second), farm.starts[second].queued) == ("b", False)
    assert farm.node_of(third) == "a"
    assert farm.node_of(first) == "a"


def test_a_tick_is_asked_for_while_something_is_queued() -> None:
    farm = Driver("a", capacity=ONE_LANE)
    farm.learn(wall=0.01)
    actions = farm.state.handle_all([event.Submit(n, SHORT, 5.0) for n in range(100, 103)])
    assert WakeAt(5.0 + STALLED_AFTER) in actions


def test_nothing_polls_while_what_is_stuck_has_nowhere_to_go() -> None:
    farm, _ = with_queue("a", count=3)
    assert of(farm.tick(STALLED_AFTER), WakeAt) == []


def test_recalled_too_late_it_simply_runs() -> None:
    farm, (first, second) = with_queue("a", count=2)
    farm.add("b", ONE_LANE)
    farm.tick(STALLED_AFTER)
    assert farm.state.invocation_view(second).state is State.RECALLING
    farm.finish(first, next=second)
    farm.finish(second)
    assert farm.outcome(second) is Completion.RETURNED


def test_a_draining_node_gives_back_what_has_not_started() -> None:
    farm, (first, second) = with_queue("a", count=2)
    actions = farm.tell(event.DrainNode("a", 0.0))
    assert of(actions, Recall) == [Recall(second, 1, "a")]
    farm.finish(first)
    farm.returned(second)
    assert farm.state.nodes() == []


def test_nothing_is_sent_ahead_past_a_better_queue_that_could_use_the_room() -> None:
    farm, numbers = with_queue("a", count=40)
    urgent = farm.call(priority=1.0)
    queued = [n for n in numbers if farm.starts.get(n) and farm.starts[n].queued]
    before = numbers[0]
    for number in queued:
        assert started(farm.finish(before, next=number, wall=0.01), queued=True) == []
        before = number
    farm.finish(before, wall=0.01)
    assert farm.node_of(urgent) == "a"


def test_forks_until_a_category_has_shown_that_it_is_short_then_processes_are_reused() -> None:
    farm = Driver("a")
    for _ in range(4):
        number = farm.call()
        assert not farm.starts[number].reuse
        farm.finish(number, wall=0.001)
    assert farm.starts[farm.call()].reuse


@pytest.mark.parametrize(("isolation", "reuse"), [("fork", False), ("reuse", True)])
def test_isolation_that_is_chosen_is_kept(isolation: str, reuse: bool) -> None:
    farm = Driver("a")
    farm.learn(wall=0.001, times=5)
    assert farm.starts[farm.call(isolation=isolation)].reuse is reuse


def test_another_allocation_is_another_group() -> None:
    farm = Driver("a")
    one = farm.call(Resources(cores=1, memory=GIB))
    other = farm.call(Resources(cores=0.5, memory=GIB))
    assert farm.starts[one].group != farm.starts[other].group


def test_a_batch_of_ends_is_answered_by_one_pass() -> None:
    farm, numbers = with_queue("a", count=100, capacity=TWO_CORES)
    first, second, third, fourth = numbers[:4]
    usage = Usage(wall_time=0.01)
    actions = farm.tell(
        event.Finished(first, 1, usage, third, 0.0),
        event.Finished(second, 1, usage, fourth, 0.0),
    )
    assert len(of(actions, Start)) == 2
