"""Allocations that grow and shrink, and who makes room."""

from __future__ import annotations

import pytest

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.actions import Completion
from afarm._core.invocation import State
from afarm._core.request import Request
from afarm.resources import Resources, Usage
from afarm.sizing import AutoSizer
from tests.core.driving import GIB, MIB, Driver, of, started

NODE = Resources(cores=4, memory=16 * GIB, disk=GIB, gpus=0)
SOFT = pytest.mark.parametrize("mode", ["elastic", "live"])


class OneGib:
    """Predicts a gibibyte for everyone, whatever was seen."""

    uses_features = False

    def __init__(self, memory: int = GIB) -> None:
        self.memory = memory
        self.bounds: list[int] = []

    def allocate(self, category, features, *, attempt, previous, largest, running=None):
        memory = self.memory if previous is None else 2 * (previous.memory or 0)
        return Resources(cores=1, memory=min(memory, largest.memory))

    def observe(self, category, features, usage, *, exhausted):
        if exhausted:
            self.bounds.append(usage.memory)


def farm_of(mode: str, memory: int = GIB) -> tuple[Driver, OneGib]:
    sizer = OneGib(memory)
    return Driver("a", capacity=NODE, sizer=sizer, mode=mode), sizer


def free(farm: Driver) -> int:
    return (NODE.memory or 0) - (farm.state.node_view("a").in_use.memory or 0)


@SOFT
def test_a_call_that_outgrows_its_prediction_grows_where_there_is_room(mode: str) -> None:
    farm, sizer = farm_of(mode)
    number = farm.call(Resources())
    [grown] = of(farm.read(number, 3 * GIB), do.Resize)
    assert isinstance(grown, do.Resize)
    assert (grown.allocation.memory or 0) > 3 * GIB
    assert grown.allocation.cores == farm.starts[number].allocation.cores
    farm.finish(number, memory=3 * GIB)
    assert farm.outcome(number) is Completion.RETURNED
    assert free(farm) == NODE.memory
    assert sizer.bounds == []


@pytest.mark.parametrize("mode", ["hard", "elastic", "live"])
def test_what_is_stated_stays_hard(mode: str) -> None:
    farm, _ = farm_of(mode)
    number = farm.call(Resources(memory=GIB))
    assert not of(farm.read(number, 3 * GIB), do.Resize)
    assert free(farm) == 15 * GIB


def test_in_hard_mode_readings_change_nothing() -> None:
    farm, _ = farm_of("hard")
    number = farm.call(Resources())
    assert farm.read(number, 3 * GIB) == []


def test_elastic_allocations_shrink_when_less_is_thought_to_be_enough() -> None:
    farm, sizer = farm_of("elastic", 8 * GIB)
    number = farm.call(Resources())
    sizer.memory = 2 * GIB
    [shrunk] = of(farm.read(number, GIB), do.Resize)
    assert isinstance(shrunk, do.Resize)
    assert shrunk.allocation.memory == 2 * GIB
    assert free(farm) == 14 * GIB


def test_where_there_is_no_room_the_newest_that_is_over_goes_and_costs_no_retry() -> None:
    farm, sizer = farm_of("elastic", 7 * GIB)
    first = farm.call(Resources())
    farm.at += 1
    second = farm.call(Resources())
    farm.read(second, int(8.5 * GIB))
    actions = farm.read(first, int(7.8 * GIB))
    [kill] = of(actions, do.Kill)
    assert isinstance(kill, do.Kill)
    assert (kill.invocation, kill.evicted) == (second, True)
    farm.killed(second, used=int(8.5 * GIB))
    view = farm.state.invocation_view(second)
    assert (view.state, view.retries_used) == (State.WAITING, 0)
    assert sizer.bounds == [int(8.5 * GIB)]
    assert (view.allocation.memory or 0) > int(8.5 * GIB)  # type: ignore[union-attr]


@SOFT
def test_what_may_run_only_once_is_never_evicted(mode: str) -> None:
    farm, _ = farm_of(mode, 7 * GIB)
    numbers = [farm.call(Resources(), retries=0) for _ in range(2)]
    for number in numbers:
        assert not of(farm.read(number, 9 * GIB), do.Kill)


def test_live_packing_starts_more_than_the_predictions_allow() -> None:
    farm, _ = farm_of("live", 5 * GIB)
    numbers = [farm.call(Resources()) for _ in range(4)]
    assert all(farm.node_of(number) == "a" for number in numbers)
    farm, _ = farm_of("elastic", 5 * GIB)
    numbers = [farm.call(Resources()) for _ in range(4)]
    assert [farm.node_of(number) for number in numbers] == ["a", "a", "a", None]


def test_live_room_that_a_call_turns_out_not_to_need_is_given_to_the_next() -> None:
    farm, sizer = farm_of("live", 10 * GIB)
    first = farm.call(Resources())
    second = farm.call(Resources())
    third = farm.call(Resources())
    assert farm.node_of(third) is None
    sizer.memory = 2 * GIB
    started(farm.read(first, GIB) + farm.read(second, GIB))
    farm.finish(farm.call(Resources(), "other"))
    assert farm.node_of(third) == "a"


def test_live_packing_evicts_before_the_node_is_full() -> None:
    farm, _ = farm_of("live", 4 * GIB)
    first = farm.call(Resources())
    farm.at += 1
    second = farm.call(Resources())
    farm.read(first, 9 * GIB)
    [kill] = of(farm.read(second, int(6.9 * GIB)), do.Kill)
    assert isinstance(kill, do.Kill)
    assert kill.invocation == second
    farm.killed(second, used=7 * GIB)
    farm.finish(first, memory=9 * GIB)
    farm.finish(second, memory=7 * GIB)
    assert farm.state.is_empty
    assert free(farm) == NODE.memory


def test_live_packing_spares_the_small_whose_end_would_not_help() -> None:
    farm, _ = farm_of("live", 4 * GIB)
    oldest, large = farm.call(Resources()), farm.call(Resources())
    farm.at += 100
    small = farm.call(Resources())
    for number, used in ((oldest, 5 * GIB), (small, GIB // 2)):
        assert not of(farm.read(number, used), do.Kill)
    assert not of(farm.read(large, 9 * GIB), do.Kill)
    farm.at += 1
    actions = farm.read(oldest, int(6.4 * GIB))
    assert [kill.invocation for kill in of(actions, do.Kill)] == [large]  # type: ignore[union-attr]


def test_live_packing_of_two_that_free_enough_evicts_who_has_worked_less() -> None:
    farm, _ = farm_of("live", 4 * GIB)
    first = farm.call(Resources())
    farm.at += 50
    second = farm.call(Resources())  # keeps to what was predicted
    farm.at += 2
    assert not of(farm.read(second, 4 * GIB), do.Kill)
    actions = farm.read(first, int(11.9 * GIB))
    assert [kill.invocation for kill in of(actions, do.Kill)] == [second]  # type: ignore[union-attr]


def test_after_three_evictions_all_that_is_predicted_is_set_aside() -> None:
    farm, sizer = farm_of("live", 4 * GIB)
    holder = farm.call(Resources())
    farm.read(holder, 8 * GIB)
    farm.at += 1
    victim = farm.call(Resources())
    for _ in range(3):
        assert farm.node_of(victim) == "a"
        sizer.memory = 4 * GIB
        assert of(farm.read(victim, int(7.9 * GIB)), do.Kill)
        farm.killed(victim)
        sizer.memory = 4 * GIB
        farm.at += 1
        farm.finish(farm.call(Resources(memory=MIB), "other"))
        if farm.node_of(victim) is None:
            break
    farm.finish(holder, memory=8 * GIB)
    assert farm.node_of(victim) == "a"
    assert (farm.starts[victim].allocation.memory or 0) > 7 * GIB


def test_nothing_starts_on_a_node_that_is_short_of_memory() -> None:
    farm, _ = farm_of("live")
    first = farm.call(Resources())
    farm.tell(event.NodeLoad("a", 8 * GIB, 0.4, farm.at))
    assert farm.node_of(first) == "a"
    number = farm.call(Resources())
    assert farm.node_of(number) is None
    assert farm.state.node_view("a").pressed
    farm.tell(event.NodeLoad("a", 8 * GIB, 0.0, farm.at))
    assert farm.node_of(number) == "a"


def test_where_nothing_of_ours_runs_one_starts_under_any_pressure() -> None:
    farm, _ = farm_of("live")
    farm.tell(event.NodeLoad("a", 0, 0.9, farm.at))
    first, second = farm.call(Resources()), farm.call(Resources())
    assert (farm.node_of(first), farm.node_of(second)) == ("a", None)
    farm.finish(first)
    assert farm.node_of(second) == "a"


def test_memory_that_others_take_is_not_there_for_calls() -> None:
    farm, _ = farm_of("live", 2 * GIB)
    first = farm.call(Resources())
    farm.at += 1
    second = farm.call(Resources())
    farm.read(first, 2 * GIB)
    farm.tell(event.NodeLoad("a", 3 * GIB, 0.0, farm.at))  # of 16, with 2 in use by us
    assert not of(farm.read(second, 2 * GIB), do.Kill)
    assert of(farm.read(second, 4 * GIB), do.Kill)


@SOFT
def test_a_lost_node_takes_back_all_that_had_grown(mode: str) -> None:
    farm, _ = farm_of(mode)
    number = farm.call(Resources())
    farm.read(number, 3 * GIB)
    farm.lose("a")
    farm.tell(event.NodeUp("a", NODE, farm.at))
    farm.finish(number, memory=3 * GIB)
    assert free(farm) == NODE.memory


@SOFT
def test_old_news_of_an_attempt_changes_nothing(mode: str) -> None:
    farm, _ = farm_of(mode)
    number = farm.call(Resources())
    farm.finish(number)
    assert farm.tell(event.Reading(number, 1, event.Reading, farm.at)) == []  # type: ignore[arg-type]


# --- cores


def reading(farm: Driver, number: int, wall: float, cores: float) -> None:
    usage = Usage(wall_time=wall, cpu_user=cores * wall, memory=MIB)
    farm.tell(event.Reading(number, farm.starts[number].attempt, usage, farm.at))


def test_calls_that_mostly_wait_share_cores() -> None:
    farm = Driver("a", mode="live")
    numbers = farm.submit(Request("waits", Resources(memory=GIB)), 8)
    at_first = [number for number in numbers if number in farm.starts]
    assert len(at_first) == 2
    for number in at_first:
        reading(farm, number, 1.0, 0.05)
    assert len([number for number in numbers if number in farm.starts]) > 2
    assert farm.state.node_view("a").in_use.cores <= 2


def test_a_call_that_works_again_takes_its_cores_back() -> None:
    farm = Driver("a", mode="live")
    [number] = farm.submit(Request("f"))
    reading(farm, number, 1.0, 0.05)
    assert farm.state.node_view("a").in_use.cores == pytest.approx(0.1)
    reading(farm, number, 2.0, 1.0)
    assert farm.state.node_view("a").in_use.cores > 1
    farm.finish(number)
    assert farm.state.node_view("a").in_use.cores == 0


def test_cores_that_were_stated_are_kept() -> None:
    farm = Driver("a", mode="live")
    numbers = farm.submit(Request("waits", Resources(cores=1, memory=GIB)), 3)
    reading(farm, numbers[0], 1.0, 0.05)
    assert numbers[2] not in farm.starts


def test_where_all_cores_are_busy_a_call_may_be_waiting_for_one() -> None:
    farm = Driver("a", mode="live")
    numbers = farm.submit(Request("works", Resources(memory=GIB)), 3)
    farm.tell(event.NodeLoad("a", 8 * GIB, 0.0, farm.at, cores=2.0))
    for number in numbers[:2]:
        reading(farm, number, 1.0, 0.4)
    assert numbers[2] not in farm.starts
    farm.tell(event.NodeLoad("a", 8 * GIB, 0.0, farm.at, cores=0.8))
    for number in numbers[:2]:
        reading(farm, number, 2.0, 0.4)
    assert numbers[2] in farm.starts


@pytest.mark.parametrize(("in_use", "at_once"), [(2.0, 2), (0.4, 8)])
def test_calls_that_had_to_wait_for_cores_are_not_taken_for_calls_that_wait(
    in_use: float, at_once: int
) -> None:
    farm = Driver("a", sizer=AutoSizer(), mode="live")
    farm.tell(event.NodeLoad("a", 8 * GIB, 0.0, farm.at, cores=in_use))
    for _ in range(30):
        [number] = farm.submit(Request("works", Resources(memory=MIB)))
        farm.at += 1
        farm.finish(number, wall=1.0, cpu=0.2)
    numbers = farm.submit(Request("works", Resources(memory=MIB)), 20)
    assert len([number for number in numbers if number in farm.starts]) == at_once
