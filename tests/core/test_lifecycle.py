"""One invocation from its submission to its end, whatever happens to it."""

from __future__ import annotations

import pytest

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.actions import Complete, Completion, Connect, DrainedNode, Kill
from afarm._core.invocation import State
from afarm._core.node import NodeState
from afarm._core.request import Request
from afarm._core.sizers import Unmanaged
from afarm.errors import LocalProtocolError, RemoteProtocolError
from afarm.resources import Resources, Usage
from tests.core.driving import GIB, ONE_CORE, TWO_CORES, Driver, of, started


def test_an_invocation_starts_returns_and_leaves_nothing() -> None:
    farm = Driver("a")
    number = farm.call()
    start = farm.starts[number]
    assert (start.attempt, start.node, start.allocation) == (1, "a", ONE_CORE)
    assert not start.queued
    assert farm.finish(number) == [Complete(number, Completion.RETURNED, "")]
    assert farm.state.is_empty
    assert farm.state._dispatcher.is_empty
    assert farm.state.node_view("a").in_use == Resources(cores=0, memory=0, disk=0, gpus=0)


def test_it_waits_until_a_node_is_up() -> None:
    farm = Driver()
    number = farm.call()
    assert farm.tell(event.AddNode("a", 0.0)) == [Connect("a", 0.0)]
    assert number not in farm.starts
    farm.tell(event.NodeUp("a", TWO_CORES, 0.0))
    assert farm.starts[number].node == "a"


def test_a_number_is_submitted_once() -> None:
    farm = Driver("a")
    number = farm.call()
    with pytest.raises(LocalProtocolError, match="not a new number"):
        farm.tell(event.Submit(number, Request("f"), 0.0))


def test_a_function_that_raises_is_not_tried_again() -> None:
    farm = Driver("a")
    number = farm.call()
    farm.fail(number)
    assert farm.outcome(number) is Completion.FAILED


def test_a_failure_to_be_retried_is_as_often_as_there_are_retries() -> None:
    farm = Driver("a")
    number = farm.call(retries=2)
    for attempt in (1, 2, 3):
        assert farm.starts[number].attempt == attempt
        farm.fail(number, retry=True)
    assert farm.outcome(number) is Completion.FAILED


# --- cancelling


def test_cancelled_before_its_start_it_never_starts() -> None:
    farm = Driver("a")
    farm.call(TWO_CORES)
    number = farm.call()
    actions = farm.tell(event.Cancel(number, 0.0))
    assert [a.outcome for a in actions if isinstance(a, Complete)] == [Completion.CANCELLED]
    farm.finish(1)
    assert number not in farm.starts


def test_cancelled_while_it_runs_its_room_is_free_only_when_its_tree_is_gone() -> None:
    farm = Driver("a")
    number = farm.call(TWO_CORES)
    after = farm.call()
    assert farm.tell(event.Cancel(number, 0.0)) == [Kill(number, 1, "a", evicted=False)]
    assert farm.outcome(number) is None
    assert after not in farm.starts
    farm.killed(number)
    assert farm.outcome(number) is Completion.CANCELLED
    assert after in farm.starts


def test_a_kill_frees_nothing_beside_a_neighbour_either() -> None:
    farm = Driver("a")
    number, neighbour = farm.submit(Request("f", ONE_CORE), 2)
    farm.tell(event.Cancel(number, 0.0))
    assert farm.state.node_view("a").in_use.cores == 2
    farm.killed(number)
    assert farm.state.node_view("a").in_use.cores == 1
    assert farm.state.invocation_view(neighbour).state is State.RUNNING


@pytest.mark.parametrize("ending", ["finish", "fail", "exhaust"])
def test_cancelled_it_stays_cancelled_however_it_ends(ending: str) -> None:
    farm = Driver("a")
    number = farm.call()
    farm.tell(event.Cancel(number, 0.0))
    getattr(farm, ending)(number)
    assert farm.outcome(number) is Completion.CANCELLED


def test_cancelling_twice_or_too_late_does_nothing() -> None:
    farm = Driver("a")
    number = farm.call()
    farm.tell(event.Cancel(number, 0.0))
    assert farm.tell(event.Cancel(number, 0.0)) == []
    farm.killed(number)
    assert farm.tell(event.Cancel(number, 0.0)) == []


# --- exhaustion


def test_over_what_was_stated_is_the_end() -> None:
    farm = Driver("a")
    number = farm.call()
    farm.exhaust(number)
    assert farm.outcome(number) is Completion.EXHAUSTED
    assert farm.completed[number].reason == "it went over its stated memory"


def test_over_a_prediction_it_is_tried_again_with_more_of_what_ran_out_only() -> None:
    farm = Driver("a", capacity=Resources(cores=8, memory=8 * GIB, disk=GIB))
    number = farm.call(Resources())
    first = farm.starts[number].allocation
    assert first == Resources(cores=1, memory=GIB)
    farm.exhaust(number)
    second = farm.starts[number].allocation
    assert second.memory is not None
    assert second.memory >= 2 * GIB
    assert second.cores == 1
    assert second.disk is None


def test_three_retries_reach_the_largest_node_and_no_more_is_tried() -> None:
    farm = Driver("a", capacity=Resources(cores=64, memory=64 * GIB))
    number = farm.call(Resources())
    sizes = []
    while number not in farm.completed:
        sizes.append(farm.starts[number].allocation.memory)
        farm.exhaust(number)
    assert sizes == [GIB, 4 * GIB, 16 * GIB, 64 * GIB]
    assert farm.completed[number].reason == "it went over the memory of the largest node"


def test_the_last_retry_gets_all_there_is() -> None:
    farm = Driver("a", capacity=Resources(cores=64, memory=64 * GIB))
    number = farm.call(Resources(), retries=1)
    farm.exhaust(number)
    assert farm.starts[number].allocation.memory == 64 * GIB


def test_without_retries_a_wrong_prediction_is_the_end() -> None:
    farm = Driver("a", capacity=Resources(cores=64, memory=64 * GIB))
    number = farm.call(Resources(), retries=0)
    farm.exhaust(number)
    assert farm.outcome(number) is Completion.EXHAUSTED
    assert "no retry is left" in farm.completed[number].reason


def test_killed_by_the_kernel_without_a_limit_of_ours_it_is_tried_again() -> None:
    farm = Driver("a", sizer=Unmanaged())
    number = farm.call(Resources())
    farm.exhaust(number)
    assert farm.starts[number].attempt == 2
    assert farm.starts[number].allocation == Resources(cores=1)


def test_a_resource_nobody_knows_is_the_agents_fault_and_changes_nothing() -> None:
    farm = Driver("a")
    number = farm.call()
    with pytest.raises(RemoteProtocolError, match="'luck', which is no resource"):
        farm.exhaust(number, "luck")
    farm.finish(number)
    assert farm.outcome(number) is Completion.RETURNED


# --- loss


def test_a_lost_node_costs_one_retry() -> None:
    farm = Driver("a", "b")
    number = farm.call(retries=2)
    farm.lose("a")
    assert farm.starts[number].node == "b"
    assert farm.state.invocation_view(number).retries_used == 1


def test_lost_on_every_try_it_ends_and_says_where() -> None:
    farm = Driver("a", "b", "c")
    number = farm.call(retries=1)
    farm.lose("a")
    farm.lose("b")
    assert farm.outcome(number) is Completion.LOST
    assert farm.completed[number].reason == "node b was lost (cut), and no retry is left"


def test_what_may_run_at_most_once_is_not_run_again() -> None:
    farm = Driver("a", "b")
    number = farm.call(retries=0)
    farm.lose("a")
    assert farm.outcome(number) is Completion.LOST


def test_a_cancelled_one_on_a_lost_node_is_cancelled() -> None:
    farm = Driver("a")
    number = farm.call()
    farm.tell(event.Cancel(number, 0.0))
    farm.lose("a")
    assert farm.outcome(number) is Completion.CANCELLED


def test_what_a_lost_connection_still_had_to_say_is_ignored() -> None:
    farm = Driver("a", "b")
    number = farm.call()
    farm.lose("a")
    late = event.Finished(number, 1, Usage(), 0, 0.0)
    assert of(farm.tell(late), Complete) == []
    assert farm.node_of(number) == "b"
    farm.lose("b")
    assert of(farm.tell(late), Complete) == []
    assert farm.state.invocation_view(number).state is State.WAITING


def test_those_lost_go_before_those_that_never_started_in_their_order() -> None:
    farm = Driver("a")
    first = farm.submit(Request("f", ONE_CORE), 2)
    rest = farm.submit(Request("f", ONE_CORE), 2)
    farm.lose("a")
    assert started(farm.tell(event.NodeUp("a", TWO_CORES, 0.0))) == first
    assert not set(rest) & set(farm.starts)


def test_a_call_on_two_nodes_that_ran_out_of_memory_is_charged_with_them() -> None:
    farm = Driver("a", "b", "c")
    number = farm.call(retries=10)
    farm.lose("a", memory=True)
    assert farm.node_of(number) == "b"
    farm.lose("b", memory=True)
    assert farm.outcome(number) is Completion.LOST
    assert "2 nodes ran out of memory" in farm.completed[number].reason


def test_a_loss_never_teaches_the_sizer() -> None:
    farm = Driver("a", "b")
    number = farm.call(Resources())
    first = farm.starts[number].allocation
    farm.lose("a")
    assert farm.starts[number].allocation == first


def test_killed_though_nobody_asked_costs_a_retry() -> None:
    farm = Driver("a")
    number = farm.call(retries=1)
    farm.killed(number)
    assert farm.starts[number].attempt == 2
    farm.killed(number)
    assert farm.outcome(number) is Completion.LOST


# --- nodes that leave


def test_a_draining_node_starts_nothing_and_leaves_when_it_is_empty() -> None:
    farm = Driver("a")
    number = farm.call()
    assert of(farm.tell(event.DrainNode("a", 0.0)), DrainedNode) == []
    other = farm.call()
    assert other not in farm.starts
    assert DrainedNode("a") in farm.finish(number)
    assert farm.state.nodes() == []


@pytest.mark.parametrize("state", ["connecting", "lost", "empty"])
def test_a_node_without_anything_running_leaves_at_once(state: str) -> None:
    farm = Driver()
    farm.tell(event.AddNode("a", 0.0))
    if state != "connecting":
        farm.tell(event.NodeUp("a", TWO_CORES, 0.0))
    if state == "lost":
        farm.lose("a")
    assert farm.tell(event.DrainNode("a", 0.0)) == [DrainedNode("a")]


def test_a_draining_node_that_is_lost_leaves_and_is_not_connected_again() -> None:
    farm = Driver("a")
    number = farm.call()
    farm.tell(event.DrainNode("a", 0.0))
    actions = farm.lose("a")
    assert of(actions, Connect) == []
    assert DrainedNode("a") in actions
    assert farm.state.invocation_view(number).state is State.WAITING


def test_a_dropped_node_costs_no_retry() -> None:
    farm = Driver("a", "b")
    number = farm.call(retries=1)
    assert DrainedNode("a") in farm.tell(event.DropNode("a", 0.0))
    assert farm.starts[number].node == "b"
    assert farm.state.invocation_view(number).retries_used == 0


def test_dropping_a_node_runs_nothing_twice_that_may_run_at_most_once() -> None:
    farm = Driver("a", "b")
    number = farm.call(retries=0)
    farm.tell(event.DropNode("a", 0.0))
    assert farm.outcome(number) is Completion.LOST


def test_a_node_removed_while_it_was_being_opened_is_closed_again() -> None:
    farm = Driver()
    farm.tell(event.AddNode("a", 0.0))
    farm.tell(event.DropNode("a", 0.0))
    assert farm.tell(event.NodeUp("a", TWO_CORES, 0.0)) == [DrainedNode("a")]
    assert farm.tell(event.NodeFailed("a", "refused", 0.0)) == []


def test_a_name_is_given_once() -> None:
    farm = Driver("a")
    with pytest.raises(LocalProtocolError, match="has a node a already"):
        farm.tell(event.AddNode("a", 0.0))
    with pytest.raises(LocalProtocolError, match="has no node b"):
        farm.tell(event.DrainNode("b", 0.0))


# --- what can never run


def test_more_than_any_node_has_is_unschedulable_and_says_what() -> None:
    farm = Driver("a")
    number = farm.call(Resources(memory=64 * GIB))
    assert farm.outcome(number) is Completion.UNSCHEDULABLE
    assert farm.completed[number].reason == (
        "it states 64.0 GiB of memory, and the largest node, a, has 8.0 GiB"
    )
    assert farm.state._dispatcher.is_empty


def test_it_waits_while_a_node_is_in_its_first_try() -> None:
    farm = Driver("a")
    farm.tell(event.AddNode("b", 0.0))
    number = farm.call(Resources(memory=64 * GIB))
    assert farm.outcome(number) is None
    farm.tell(event.NodeFailed("b", "refused", 0.0))
    assert farm.outcome(number) is Completion.UNSCHEDULABLE


def test_it_waits_for_a_lost_node_that_could_hold_it() -> None:
    farm = Driver("a")
    large = Resources(cores=64, memory=64 * GIB)
    farm.add("b", large)
    farm.lose("b")
    number = farm.call(Resources(memory=64 * GIB))
    assert farm.outcome(number) is None
    farm.tell(event.NodeUp("b", large, 0.0))
    assert farm.node_of(number) == "b"


def test_stated_together_on_no_node_is_unschedulable() -> None:
    farm = Driver()
    farm.add("cpu", Resources(cores=64, memory=GIB))
    farm.add("ram", Resources(cores=1, memory=64 * GIB))
    number = farm.call(Resources(cores=8, memory=8 * GIB))
    assert farm.completed[number].reason == (
        "no node has all that it states together, though each alone can be had"
    )


def test_a_node_that_is_not_in_the_farm_is_unschedulable() -> None:
    farm = Driver("a")
    number = farm.call(node="z")
    assert farm.completed[number].reason == "the farm has no node named 'z'"


def test_pinned_to_a_node_it_waits_for_that_one_and_ends_when_it_leaves() -> None:
    farm = Driver("a", "b")
    blocker = farm.call(TWO_CORES, node="b")
    number = farm.call(node="b")
    assert number not in farm.starts
    farm.tell(event.DrainNode("b", 0.0))
    farm.finish(blocker)
    assert farm.outcome(number) is Completion.UNSCHEDULABLE


# --- faults of the other side


def test_a_successor_that_is_not_queued_there_is_an_error_that_changes_nothing() -> None:
    farm = Driver("a")
    number, other = farm.submit(Request("f", ONE_CORE), 2)
    with pytest.raises(RemoteProtocolError, match=f"{other} took over from {number}"):
        farm.finish(number, next=other)
    assert farm.state.counts().running == 2


def test_after_an_impossible_event_the_others_of_its_batch_count() -> None:
    farm = Driver("a")
    first, second = farm.submit(Request("f", ONE_CORE), 2)
    with pytest.raises(RemoteProtocolError):
        farm.tell(
            event.Finished(first, 1, Usage(), second, 0.0),
            event.Finished(second, 1, Usage(), 0, 0.0),
        )
    assert of(farm.state.handle_all([]), do.Complete) == [Complete(second, Completion.RETURNED, "")]


def test_a_running_one_cannot_be_returned() -> None:
    farm = Driver("a")
    number = farm.call()
    with pytest.raises(RemoteProtocolError, match="was returned, but is running"):
        farm.returned(number)


def test_counts_say_where_everything_is() -> None:
    farm = Driver("a")
    done, *_ = farm.submit(Request("f", ONE_CORE), 5)
    farm.finish(done)
    counts = farm.state.counts()
    assert (counts.waiting, counts.running, counts.queued) == (2, 2, 0)
    assert counts.finished == {Completion.RETURNED: 1}
    assert farm.state.node_view("a").state is NodeState.UP
    assert repr(farm.state) == "<FarmState 1 nodes, 2 waiting, 2 running>"
