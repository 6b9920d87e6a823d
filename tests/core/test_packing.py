"""Who goes first, where to, and that nobody waits for ever."""

from __future__ import annotations

import pytest

from afarm._core import events as event
from afarm._core.actions import WakeAt
from afarm._core.packing import RESERVE_AFTER, RESERVE_EVERY, TURNOVERS
from afarm._core.request import Request
from afarm.resources import Resources, Usage
from tests.core.driving import GIB, ONE_CORE, TWO_CORES, Driver, of, started
from tests.property.farm_model import Agent, World

WHOLE = Resources(cores=2, memory=8 * GIB)
HALF = Resources(cores=1, memory=4 * GIB)


# --- the order


def test_one_queue_is_served_first_in_first_out() -> None:
    farm = Driver("a")
    first, second, third, fourth = farm.submit(Request("f", ONE_CORE), 4)
    assert started(farm.finish(first)) == [third]
    assert started(farm.finish(second)) == [fourth]


def test_a_higher_priority_goes_first() -> None:
    farm = Driver("a")
    blocker = farm.call(WHOLE)
    farm.call(WHOLE)
    urgent = farm.call(WHOLE, priority=1.0)
    assert started(farm.finish(blocker)) == [urgent]


def test_the_largest_work_goes_first() -> None:
    farm = Driver("a")
    for category, wall in (("short", 1.0), ("long", 100.0), ("medium", 10.0)):
        farm.learn(category, wall=wall)
    blocker = farm.call(WHOLE)
    _short, long, medium = (farm.call(WHOLE, category=c) for c in ("short", "long", "medium"))
    assert started(farm.finish(blocker)) == [long]
    assert started(farm.finish(long)) == [medium]


def test_of_equally_long_ones_the_larger_share_goes_first() -> None:
    farm = Driver("a")
    farm.learn("small", wall=1.0)
    farm.learn("large", wall=1.0)
    blocker = farm.call(WHOLE)
    farm.call(ONE_CORE, category="small")
    large = farm.call(WHOLE, category="large")
    assert started(farm.finish(blocker)) == [large]


def test_what_nobody_knows_goes_first_since_the_rest_depends_on_it() -> None:
    farm = Driver("a")
    farm.learn("known", wall=1000.0)
    blocker = farm.call(WHOLE, category="known")
    farm.call(WHOLE, category="known")
    unknown = farm.call(WHOLE, category="unknown")
    assert started(farm.finish(blocker)) == [unknown]


def test_what_does_not_fit_is_passed_by_what_does() -> None:
    farm = Driver("a")
    farm.call(HALF)
    large = farm.call(WHOLE)
    small = farm.call(HALF)
    assert small in farm.starts
    assert large not in farm.starts


# --- the place


def test_equal_nodes_are_loaded_equally() -> None:
    farm = Driver("a", "b")
    nodes = [farm.starts[n].node for n in farm.submit(Request("f", ONE_CORE), 4)]
    assert sorted(nodes) == ["a", "a", "b", "b"]


def test_a_node_that_has_the_environment_is_preferred() -> None:
    farm = Driver("a", "b")
    farm.finish(farm.call(environment=1, node="b"))
    farm.call(environment=2, node="b")
    assert farm.node_of(farm.call(environment=1)) == "b"


def test_gpus_are_left_to_those_who_want_them() -> None:
    farm = Driver()
    farm.add("gpu", Resources(cores=8, memory=64 * GIB, gpus=2))
    farm.add("cpu", TWO_CORES)
    numbers = farm.submit(Request("f", ONE_CORE), 3)
    assert [farm.node_of(number) for number in numbers] == ["cpu", "cpu", "gpu"]
    assert farm.node_of(farm.call(Resources(cores=1, memory=GIB, gpus=2))) == "gpu"


@pytest.mark.parametrize("scarce", ["cores", "memory", "disk", "gpus"])
def test_no_resource_is_given_twice(scarce: str) -> None:
    farm = Driver("a", capacity=Resources(cores=4, memory=4, disk=4, gpus=4))
    small = {"cores": 1, "memory": 1, "disk": 1, "gpus": 1, scarce: 3}
    first, second = farm.submit(Request("f", Resources(**small)), 2)
    assert second not in farm.starts
    farm.finish(first)
    assert second in farm.starts


# --- nobody waits for ever


def test_a_node_is_kept_free_for_one_that_was_passed_over_for_long() -> None:
    farm = Driver("a")
    first = farm.call(HALF)
    large = farm.call(WHOLE)
    second = farm.call(HALF)
    farm.tick(RESERVE_AFTER)
    assert farm.state.node_view("a").reserved
    farm.finish(first, wall=RESERVE_AFTER)
    small = farm.call(HALF)
    assert small not in farm.starts, "it took room that is kept for the large one"
    farm.finish(second)
    assert large in farm.starts
    assert not farm.state.node_view("a").reserved


def test_what_is_over_long_before_a_kept_node_is_free_may_start_there() -> None:
    farm = Driver("a")
    [short] = farm.submit(Request("short", HALF))
    farm.finish(short, wall=1.0)
    blocker = farm.call(HALF)
    large = farm.call(WHOLE)
    farm.tick(RESERVE_AFTER)
    assert farm.state.node_view("a").reserved
    # The blocker, the first of its category, is expected to take as long as it has taken.
    [filling_in] = farm.submit(Request("short", HALF))
    [unknown] = farm.submit(Request("unknown", HALF))
    assert filling_in in farm.starts
    farm.finish(filling_in, wall=1.0)
    assert unknown not in farm.starts, "nobody knows how long it takes"

    # Who was let in is late: that lets in nobody else.
    [late] = farm.submit(Request("short", HALF))
    farm.finish(blocker)
    [next_one] = farm.submit(Request("short", HALF))
    assert late in farm.starts
    assert next_one not in farm.starts
    farm.finish(late)
    assert large in farm.starts


def test_a_tick_is_asked_for_when_somebody_will_have_waited_for_long() -> None:
    farm = Driver("a")
    farm.call(WHOLE)
    actions = farm.state.handle_all([event.Submit(50, Request("f", ONE_CORE), 3.0)])
    assert of(actions, WakeAt) == [WakeAt(3.0 + RESERVE_AFTER)]


def test_a_tick_that_is_to_come_is_not_asked_for_again_when_an_old_one_comes() -> None:
    farm = Driver("a")
    farm.call(WHOLE)
    farm.call(ONE_CORE)
    farm.at = 5.0
    farm.call(ONE_CORE, category="g")
    assert of(farm.tick(RESERVE_AFTER - 5.0), WakeAt) == [WakeAt(5.0 + RESERVE_AFTER)]
    assert of(farm.tick(0.0), WakeAt) == []


def test_no_tick_is_asked_for_while_nobody_waits() -> None:
    farm = Driver("a")
    assert of(farm.tell(event.Submit(50, Request("f", ONE_CORE), 3.0)), WakeAt) == []


def test_where_calls_take_minutes_a_wait_of_minutes_is_nothing() -> None:
    farm = Driver("a")
    number = farm.call(HALF)
    farm.at += 60
    farm.finish(number, wall=60)
    farm.call(HALF)
    farm.call(WHOLE)
    farm.call(HALF)
    farm.tick(TURNOVERS * 30 - 1)  # two run, each for a minute: one ends every 30 s
    assert not farm.state.node_view("a").reserved
    farm.tick(2)
    assert farm.state.node_view("a").reserved


def test_the_node_kept_free_is_the_one_where_there_will_be_room_first() -> None:
    farm = Driver("slow", "fast")
    farm.learn("long", wall=1000.0)
    farm.learn("short", wall=30.0)
    farm.call(WHOLE, category="long", node="slow")
    farm.call(WHOLE, category="short", node="fast")
    farm.call(WHOLE, category="waits")
    farm.tick(RESERVE_AFTER)
    assert farm.state.node_view("fast").reserved
    assert not farm.state.node_view("slow").reserved


def test_a_reservation_does_not_hold_up_a_higher_priority() -> None:
    farm = Driver("a")
    first = farm.call(HALF)
    farm.call(HALF)
    farm.call(WHOLE)
    farm.tick(RESERVE_AFTER)
    farm.finish(first, wall=RESERVE_AFTER)
    assert farm.call(HALF) not in farm.starts
    assert farm.call(HALF, priority=1.0) in farm.starts


@pytest.mark.parametrize("end", ["cancel", "lose", "drain"])
def test_a_reservation_ends_with_its_reason(end: str) -> None:
    farm = Driver("a", "b")
    farm.submit(Request("f", HALF), 4)
    large = farm.call(WHOLE)
    farm.tick(RESERVE_AFTER)
    (node,) = [view.name for view in farm.state.nodes() if view.reserved]
    if end == "cancel":
        farm.tell(event.Cancel(large, farm.at))
        assert not any(view.reserved for view in farm.state.nodes())
    elif end == "lose":
        farm.lose(node)
        farm.tick(RESERVE_EVERY)
        assert [view.name for view in farm.state.nodes() if view.reserved] == [
            {"a": "b", "b": "a"}[node]
        ]
    else:
        farm.tell(event.DrainNode(node, farm.at))
        assert not farm.state.node_view(node).reserved


def test_what_waited_behind_a_reservation_starts_when_it_ends() -> None:
    farm = Driver("a")
    first = farm.call(HALF)
    farm.call(HALF)
    large = farm.call(WHOLE)
    farm.tick(RESERVE_AFTER)
    farm.finish(first, wall=RESERVE_AFTER)
    small = farm.call(HALF)
    assert started(farm.tell(event.Cancel(large, farm.at))) == [small]


def test_few_nodes_are_kept_free_at_a_time() -> None:
    farm = Driver(*"abcdefgh")
    farm.submit(Request("f", HALF), 16)
    for category in "uvwxyz":
        farm.call(WHOLE, category=category)
    farm.tick(RESERVE_AFTER)
    assert sum(view.reserved for view in farm.state.nodes()) == 2


@pytest.mark.parametrize("wall", [0.05, 4.0])
def test_under_endless_small_arrivals_every_large_one_starts(
    wall: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "check", lambda self: None)  # it looks at all there ever were
    world = World()
    capacity = Resources(cores=2, memory=8 * GIB)
    for name in ("a", "b"):
        world.tell(event.AddNode(name, 0.0))
        del world.connecting[name]
        world.agents[name] = Agent(capacity)
        world.tell(event.NodeUp(name, capacity, 0.0))
    small, large = Request("small", HALF), Request("large", WHOLE)
    _submit(world, small, 40)
    wanted = _submit(world, large, 3)
    passed = 0
    while not wanted <= world.outcomes.keys():
        assert world.at < 60 + 60 * wall, "a large one never starts"
        for name, agent in world.agents.items():
            world.at += wall / 4
            while agent.inbox:
                world.ran(agent.step(world.at))
            # One at a time, the oldest first: a whole node is never free by chance.
            oldest = next(iter(agent.live))
            passed += oldest not in wanted
            usage = Usage(wall_time=wall)
            world.ran(agent.end(oldest, event.Finished(0, 0, usage, 0, world.at)))
            world.receive(name, 1000)
        _submit(world, small, 40 - world.state.counts().waiting)
    assert passed > 3 * RESERVE_AFTER / wall, "they were hardly passed over: this shows nothing"


def _submit(world: World, request: Request, count: int) -> set[int]:
    first = len(world.requests) + 1
    numbers = set(range(first, first + count))
    world.requests.update(dict.fromkeys(numbers, request))
    world.tell(*(event.Submit(number, request, world.at) for number in sorted(numbers)))
    return numbers
