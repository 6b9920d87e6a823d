"""The sizers against plain definitions of what they are to do."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm import sizing
from afarm._core.request import STATED_CORES, Request
from afarm._core.sizers.base import MOST_CATEGORIES
from afarm._core.sizers.history import History
from afarm.resources import Resources, Usage
from afarm.sizing import AutoSizer, Fixed, MaxSeen, Sizer, Unmanaged, WholeNode, sizer_named
from tests.core.driving import GIB, MIB, Driver

LARGEST = Resources(cores=16, memory=64 * GIB, disk=GIB, gpus=1)
sizes = st.integers(0, 200 * GIB)


def first(sizer: Sizer, largest: Resources = LARGEST, **features: float) -> Resources:
    return sizer.allocate("f", features, attempt=0, previous=None, largest=largest)


def after(
    sizer: Sizer, previous: Resources, attempt: int, largest: Resources = LARGEST
) -> Resources:
    return sizer.allocate("f", {}, attempt=attempt, previous=previous, largest=largest)


def saw(sizer: Sizer, *memory: int, exhausted: bool = False) -> None:
    for used in memory:
        sizer.observe("f", {}, Usage(memory=used), exhausted=exhausted)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("auto", AutoSizer), ("whole-node", WholeNode), ("unmanaged", Unmanaged)],
)
def test_sizers_have_names(name: str, kind: type[object]) -> None:
    assert type(sizer_named(name)) is kind


def test_an_unknown_name_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="'auto', 'whole-node', 'unmanaged' or a Sizer, not 'x'"):
        sizer_named("x")


def test_all_sizers_are_public() -> None:
    assert set(sizing.__all__) >= {"AutoSizer", "Fixed", "MaxSeen", "Unmanaged", "WholeNode"}


# --- the baselines


@given(used=st.lists(sizes))
def test_a_whole_node_is_always_the_whole_node(used: list[int]) -> None:
    sizer = WholeNode()
    saw(sizer, *used)
    assert first(sizer) == LARGEST
    assert after(sizer, LARGEST, 1) == LARGEST


@given(used=st.lists(sizes))
def test_unmanaged_is_one_core_whatever_was_seen(used: list[int]) -> None:
    sizer = Unmanaged()
    saw(sizer, *used)
    assert first(sizer) == Resources(cores=1)


def test_fixed_is_the_guess_and_then_the_largest_node() -> None:
    guess = Resources(cores=2, memory=GIB, wall_time=60.0)
    sizer = Fixed(guess)
    assert first(sizer) == guess
    assert after(sizer, guess, 1) == LARGEST.over(guess)


@given(used=st.lists(sizes, min_size=1))
def test_max_seen_is_the_maximum(used: list[int]) -> None:
    sizer = MaxSeen()
    assert first(sizer) == LARGEST
    saw(sizer, *used)
    assert first(sizer) == Resources(cores=1, memory=max(used))


# --- auto


def test_before_anything_is_known_each_core_gets_its_share_of_the_largest_node() -> None:
    assert first(AutoSizer()) == Resources(cores=1, memory=4 * GIB)
    assert first(AutoSizer(), **{STATED_CORES: 4}).memory == 16 * GIB
    assert first(AutoSizer(), **{STATED_CORES: 99}).memory == 64 * GIB


def test_stated_cores_count_for_the_fair_share_in_the_farm() -> None:
    farm = Driver("a", capacity=LARGEST)
    number = farm.call(Resources(cores=4))
    assert farm.starts[number].allocation == Resources(cores=4, memory=16 * GIB)


def test_a_node_that_does_not_say_what_memory_it_has_limits_none() -> None:
    assert first(AutoSizer(), Resources(cores=4)) == Resources(cores=1)


@given(used=st.integers(1, 8 * GIB), times=st.integers(8, 60))
def test_calls_that_all_need_the_same_get_that_and_little_more(used: int, times: int) -> None:
    sizer = AutoSizer()
    saw(sizer, *[used] * times)
    memory = first(sizer).memory
    assert memory is not None
    assert used <= memory <= (used + 9 * MIB) * 1.3 + MIB


@given(used=st.lists(sizes, min_size=1, max_size=20), bound=st.integers(GIB, 32 * GIB))
def test_an_exhausted_attempt_is_a_lower_bound_for_the_next(used: list[int], bound: int) -> None:
    sizer = AutoSizer()
    saw(sizer, *used)
    saw(sizer, bound, exhausted=True)
    memory = after(sizer, Resources(cores=1, memory=bound), 1).memory
    assert memory is not None
    assert memory >= 1.2 * bound


def test_a_feature_that_tells_the_need_is_found() -> None:
    sizer = AutoSizer()
    for n in range(1, 30):
        features = {"size": float(n), "noise": float(n * 7919 % 13 + 1)}
        sizer.observe("f", features, Usage(memory=n * 100 * MIB, wall_time=1.0), exhausted=False)
    small, large = first(sizer, size=5.0, noise=9.0), first(sizer, size=25.0, noise=2.0)
    assert 500 * MIB <= (small.memory or 0) <= 700 * MIB
    assert 2500 * MIB <= (large.memory or 0) <= 3400 * MIB
    assert sizer.expect("f", {"size": 10.0}).memory == pytest.approx(1000 * MIB, rel=0.1)


def grows_with_size(sizer: AutoSizer, each: int) -> None:
    for n in range(1, 30):
        features = {"size": float(n), "noise": float(n * 7919 % 13 + 1)}
        sizer.observe("f", features, Usage(memory=n * each, wall_time=1.0), exhausted=False)


def test_calls_are_told_apart_by_the_feature_that_tells_and_by_no_other() -> None:
    sizer = AutoSizer()
    assert sizer.similar("f", {"size": 1.0}) == sizer.similar("f", {"size": 9.0})
    grows_with_size(sizer, 100 * MIB)
    assert sizer.telling("f") == sizer.predicted_by("f") == "size"
    assert sizer.similar("f", {"size": 8.0, "noise": 1.0}) == sizer.similar("f", {"size": 8.1})
    assert sizer.similar("f", {"size": 8.0}) != sizer.similar("f", {"size": 9.0})
    assert sizer.similar("f", {"noise": 8.0}) == sizer.similar("f", {})


def test_calls_that_hardly_differ_are_not_told_apart() -> None:
    sizer = AutoSizer()
    grows_with_size(sizer, MIB // 8)
    assert sizer.telling("f") is None
    assert first(sizer, size=1.0) == first(sizer, size=29.0)


def test_features_that_tell_nothing_are_asked_for_now_and_then() -> None:
    sizer = AutoSizer()
    wanted = []
    for n in range(1000):
        wanted.append(sizer.wants_features("f"))
        features = {"noise": float(n * 7919 % 13)} if wanted[-1] else {}
        usage = Usage(memory=GIB, wall_time=0.001)
        sizer.observe("f", features, usage, exhausted=False)
    assert all(wanted[:200])
    assert 0 < sum(wanted[500:]) < 50


def test_of_short_calls_with_features_not_all_are_learned_from() -> None:
    sizer = AutoSizer()
    grows_with_size(sizer, 10 * MIB)
    learned = []
    sizer._known["f"].learn = learned.append  # type: ignore[method-assign]
    for n in range(1000):
        sizer._known["f"].count = 300 + n
        usage = Usage(memory=50 * MIB, wall_time=0.001)
        sizer.observe("f", {"size": 5.0}, usage, exhausted=False)
    assert len(learned) == 125
    sizer.observe("f", {"size": 5.0}, Usage(memory=GIB, wall_time=0.001), exhausted=False)
    assert len(learned) == 126  # it needed more than it would get


def test_those_who_wait_are_sorted_anew_once_a_feature_tells() -> None:
    farm = Driver("a")  # two at a time
    numbers = [
        farm.call(Resources(), features={"n": float(n % 10 + 1), "seed": float(n * 7919 % 101)})
        for n in range(40)
    ]
    order = []
    while running := [n for n in farm.starts if n not in farm.completed]:
        order += running[:1]
        farm.finish(running[0], memory=(running[0] - 1) % 10 * 100 * MIB + 100 * MIB)
    assert sorted(order) == numbers
    late = {n: farm.starts[n].allocation.memory or 0 for n in order[25:]}
    assert len(set(late.values())) >= 3
    for number, memory in late.items():
        assert memory >= 0.8 * ((number - 1) % 10 + 1) * 100 * MIB
    assert farm.state._dispatcher.is_empty


def test_of_many_queues_that_a_feature_makes_not_all_are_sized_for_each_call() -> None:
    sizer = AutoSizer()
    grows_with_size(sizer, 100 * MIB)
    farm = Driver("a", sizer=sizer)
    farm.submit(Request("f", features={"size": 1.0}), 200)
    for size in range(2, 30):
        farm.call(Resources(), features={"size": float(size)})
    asked = []
    allocate = sizer.allocate

    def count(category, features, **more):  # type: ignore[no-untyped-def]
        asked.append(features)
        return allocate(category, features, **more)

    sizer.allocate = count  # type: ignore[method-assign]
    each = []
    for _ in range(100):
        asked.clear()
        running = next(n for n in farm.starts if n not in farm.completed)
        farm.finish(running, memory=100 * MIB if running <= 200 else GIB)
        each.append(len(asked))
    queues = 20  # at least: some sizes are alike
    assert each[10] >= queues  # while little is known
    assert sum(each[50:]) / 50 < 5


def test_of_many_queues_that_what_is_stated_makes_not_all_are_sized_for_each_call() -> None:
    sizer = AutoSizer()
    farm = Driver("a", sizer=sizer)
    for number in range(2000):
        farm.call(Resources(memory=GIB + number * MIB // 4))
    asked = []
    allocate = sizer.allocate

    def count(category, features, **more):  # type: ignore[no-untyped-def]
        asked.append(features)
        return allocate(category, features, **more)

    sizer.allocate = count  # type: ignore[method-assign]
    each = []
    for _ in range(100):
        asked.clear()
        farm.finish(next(n for n in farm.starts if n not in farm.completed))
        each.append(len(asked))
    assert sum(size > 1000 for size in each) in range(2, 8)  # when twice as much is known
    assert sum(each[70:]) / 30 < 5


def test_what_a_feature_does_not_tell_of_waits_in_the_order_it_came() -> None:
    farm = Driver("a")
    numbers = [farm.call(Resources(cores=2), features={"n": 1.0 + n % 2}) for n in range(30)]
    order = []
    for _ in numbers:
        [running] = [n for n in farm.starts if n not in farm.completed]
        order.append(running)
        farm.finish(running, memory=(1 + (running - 1) % 2 * 7) * 100 * MIB)
    for parity in (0, 1):
        alike = [n for n in order if n % 2 == parity]
        assert alike == sorted(alike)


def test_what_a_kind_needs_is_followed_when_it_changes() -> None:
    sizer = AutoSizer()
    saw(sizer, *[GIB] * 40)
    saw(sizer, *[4 * GIB] * 12)
    assert (first(sizer).memory or 0) >= 4 * GIB


def test_cores_follow_from_what_calls_keep_busy() -> None:
    sizer = AutoSizer()
    for _ in range(10):
        sizer.observe("waits", {}, Usage(wall_time=10.0, cpu_user=1.0), exhausted=False)
        sizer.observe("works", {}, Usage(wall_time=10.0, cpu_user=31.0), exhausted=False)
    waits, works = (
        sizer.allocate(name, {}, attempt=0, previous=None, largest=LARGEST)
        for name in ("waits", "works")
    )
    assert waits.cores == 0.25
    assert works.cores == 3.25


def test_short_calls_say_nothing_about_threads() -> None:
    sizer = AutoSizer()
    sizer.observe("f", {}, Usage(wall_time=0.001, cpu_user=0.004), exhausted=False)
    assert first(sizer).cores == 1


def test_of_many_very_short_calls_a_larger_one_is_still_noticed() -> None:
    sizer = AutoSizer()
    for n in range(1000):
        sizer.observe("f", {}, Usage(wall_time=0.001, memory=MIB), exhausted=False)
        if n % 50 == 0:
            before = first(sizer).memory
    for _ in range(20):
        sizer.observe("f", {}, Usage(wall_time=0.001, memory=GIB), exhausted=False)
    assert (before or 0) < 100 * MIB
    assert (first(sizer).memory or 0) >= GIB


def test_fair_shares_fit_together() -> None:
    node = Resources(cores=2, memory=25_276_502_016)
    memory = first(AutoSizer(), node).memory
    assert memory is not None
    assert 2 * memory <= 25_276_502_016


def test_a_new_kind_is_sized_by_the_others_once_some_are_known() -> None:
    sizer = AutoSizer()
    for name in ("a", "b", "c"):
        for _ in range(5):
            sizer.observe(name, {}, Usage(memory=100 * MIB, wall_time=1.0), exhausted=False)
    assert (first(sizer).memory or 0) < GIB


def test_what_others_need_is_not_worked_out_for_each_new_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizer = AutoSizer()
    usage = Usage(memory=100 * MIB, wall_time=1.0)
    for name in range(300):
        for _ in range(3):
            sizer.observe(f"kind {name}", {}, usage, exhausted=False)
    asked = []
    size = History.size

    def count(history: History, features: Mapping[str, float]) -> float | None:
        asked.append(history)
        return size(history, features)

    monkeypatch.setattr(History, "size", count)
    new = [f"new {number}" for number in range(100)]
    sizes = {
        sizer.allocate(name, {}, attempt=0, previous=None, largest=LARGEST).memory for name in new
    }
    assert max(size or 0 for size in sizes) < GIB
    assert len(asked) == 300
    for _ in range(20):
        sizer.observe("kind 1", {}, usage, exhausted=False)
    first(sizer)
    assert len(asked) == 600


def test_allocations_come_in_few_sizes() -> None:
    found = set()
    for used in range(100 * MIB, 1000 * MIB, MIB):
        sizer = AutoSizer()
        saw(sizer, *[used] * 10)
        found.add(first(sizer).memory)
    assert len(found) < 40


@given(
    start=st.integers(1, 64 * GIB),
    largest=st.integers(1, 1 << 45),
    used=st.lists(st.integers(0, 1 << 40), max_size=3),
)
def test_each_retry_is_clearly_larger_and_the_third_is_the_largest_there_is(
    start: int, largest: int, used: list[int]
) -> None:
    sizer = AutoSizer()
    saw(sizer, *used, exhausted=True)
    node = Resources(cores=4, memory=max(start, largest))
    previous = Resources(cores=1, memory=start)
    for attempt in (1, 2, 3):
        grown = after(sizer, previous, attempt, node)
        assert grown.memory is not None
        assert previous.memory is not None
        assert node.memory is not None
        assert min(node.memory, 1.25 * previous.memory) <= grown.memory + 1 <= node.memory + 1
        previous = grown
    assert previous.memory == node.memory


@pytest.mark.parametrize("make", [AutoSizer, MaxSeen])
def test_what_is_kept_is_bounded_however_many_categories_there_are(make: type[AutoSizer]) -> None:
    sizer = make()
    for number in range(MOST_CATEGORIES + 100):
        sizer.observe(f"f{number}", {}, Usage(memory=MIB), exhausted=False)
    assert len(vars(sizer).get("_seen") or vars(sizer)["_known"]) == MOST_CATEGORIES


# --- in the farm


class ByFeature:
    """A sizer of a user: memory in proportion to an argument."""

    def __init__(self) -> None:
        self.observed: list[tuple[float, int, bool]] = []

    def allocate(self, category, features, *, attempt, previous, largest, running=None):
        return Resources(cores=1, memory=int(features["n"] * GIB))

    def observe(self, category, features, usage, *, exhausted):
        self.observed.append((features["n"], usage.memory, exhausted))


def test_a_sizer_that_looks_at_features_sizes_each_call_by_its_own() -> None:
    sizer = ByFeature()
    farm = Driver("a", sizer=sizer)
    small = farm.call(Resources(), features={"n": 1.0})
    large = farm.call(Resources(), features={"n": 5.0})
    assert farm.starts[small].allocation.memory == GIB
    assert farm.starts[large].allocation.memory == 5 * GIB
    farm.finish(small, memory=7)
    farm.exhaust(large, used=9)
    assert sizer.observed == [(1.0, 7, False), (5.0, 9, True)]
    assert farm.starts[large].allocation.memory == 8 * GIB  # it grew, though the sizer did not


def test_what_turns_out_smaller_starts_wherever_it_fits_now() -> None:
    farm = Driver("a", "b", capacity=Resources(cores=8, memory=8 * GIB))
    for node in ("a", "b"):
        farm.call(Resources(cores=1, memory=6 * GIB + 512 * MIB), category="big", node=node)
    numbers = farm.submit(Request("f"), 6)  # a fair share each: 1 GiB
    assert [farm.node_of(number) for number in numbers[:3]] == ["a", "b", None]
    farm.finish(numbers[0], memory=10 * MIB)
    assert {farm.node_of(number) for number in numbers[2:]} == {"a", "b"}


def test_a_prediction_is_clamped_to_the_largest_node() -> None:
    farm = Driver("a", sizer=ByFeature())
    number = farm.call(Resources(), features={"n": 100.0})
    assert farm.starts[number].allocation.memory == 8 * GIB


def test_a_prediction_is_clamped_to_a_node_that_has_what_is_stated() -> None:
    farm = Driver(sizer=ByFeature())
    farm.add("ram", Resources(cores=1, memory=64 * GIB))
    farm.add("cpu", Resources(cores=8, memory=4 * GIB))
    number = farm.call(Resources(cores=8), features={"n": 100.0})
    assert farm.starts[number].node == "cpu"
    assert farm.starts[number].allocation == Resources(cores=8, memory=4 * GIB)


def test_nothing_waits_for_a_lost_node_only_because_it_is_the_largest() -> None:
    farm = Driver("a")
    farm.add("big", Resources(cores=64, memory=64 * GIB))
    farm.lose("big")
    number = farm.call(Resources(), node=None)
    assert farm.starts[number].node == "a"


def test_what_outgrew_the_nodes_that_are_up_waits_for_a_larger_one_that_is_lost() -> None:
    farm = Driver("a", sizer=WholeNode())
    farm.add("big", Resources(cores=64, memory=64 * GIB, disk=100 * GIB, gpus=0))
    farm.lose("big")
    number = farm.call(Resources())
    farm.exhaust(number, used=8 * GIB)
    assert farm.outcome(number) is None
    assert farm.node_of(number) is None


def test_a_request_tells_sizers_the_cores_that_are_stated() -> None:
    request = Request("f", Resources(cores=3), features={"n": 1.0})
    assert request.sizing_features == {"n": 1.0, STATED_CORES: 3}
    with pytest.raises(TypeError):
        request.features["n"] = 2.0  # type: ignore[index]


def test_a_request_refuses_what_means_nothing() -> None:
    with pytest.raises(ValueError, match="isolation is one of"):
        Request("f", isolation="jail")
    with pytest.raises(ValueError, match="retries cannot be -1"):
        Request("f", retries=-1)


# --- from run to run


def test_what_was_learned_outlives_the_sizer() -> None:
    earlier, later = AutoSizer(), AutoSizer()
    saw(earlier, 100 * MIB, 300 * MIB, 200 * MIB)
    later.load(json.loads(json.dumps(earlier.dump())))
    assert first(later) == first(earlier)
    assert later.dump(["f", "unknown"]) == earlier.dump()


def test_of_changed_code_only_the_latest_is_taken() -> None:
    earlier, later = AutoSizer(), AutoSizer()
    saw(earlier, *[GIB] * 18, 3 * GIB, 3 * GIB)
    later.load(earlier.dump(), trust=0.1)
    assert len(later.dump()["f"]) == 2  # type: ignore[arg-type]
    assert (first(later).memory or 0) >= 3 * GIB


@pytest.mark.parametrize("value", [None, [], ["a", 1], {"count": 3}, [-1, 4]])
def test_what_another_version_kept_is_left_out(value: object) -> None:
    sizer = AutoSizer()
    sizer.load({"f": value})
    assert first(sizer) == first(AutoSizer())


def test_the_default_sizer_remembers() -> None:
    assert isinstance(AutoSizer(), sizing.Remembering)
    assert not isinstance(WholeNode(), sizing.Remembering)
