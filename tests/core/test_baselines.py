"""The sizers of the literature, held against their plain definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._core.sizers.bucketing import exhaustive, greedy, waste
from afarm._core.sizers.first_allocation import maximum_throughput, minimum_waste
from afarm.resources import Resources, Usage
from afarm.sizing import (
    Ensemble,
    ExhaustiveBucketing,
    FirstAllocation,
    GreedyBucketing,
    Oracle,
    Percentile,
    Sizer,
)

LARGEST = Resources(cores=16, memory=64_000_000_000)
peaks = st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.1, 1000)), min_size=1, max_size=30)


def saw(sizer: Sizer, *memory: int, **features: float) -> None:
    for used in memory:
        usage = Usage(memory=used, wall_time=1.0)
        sizer.observe("f", features, usage, exhausted=False)


def first(sizer: Sizer, **features: float) -> int:
    memory = sizer.allocate("f", features, attempt=0, previous=None, largest=LARGEST).memory
    assert memory is not None
    return memory


def after(sizer: Sizer, memory: int, attempt: int = 1) -> int:
    previous = Resources(cores=1, memory=memory)
    found = sizer.allocate("f", {}, attempt=attempt, previous=previous, largest=LARGEST).memory
    assert found is not None
    return found


@given(seen=peaks)
def test_no_other_first_allocation_wastes_less(seen: list[tuple[int, float]]) -> None:
    largest = max(peak for peak, _ in seen)

    def wasted(a: int) -> float:
        return sum(a * t + (largest * t if peak > a else 0) for peak, t in seen)

    chosen = minimum_waste(seen)
    assert wasted(chosen) <= min(wasted(a) for a, _ in seen) * (1 + 1e-9)


@given(seen=peaks)
def test_no_other_first_allocation_lets_more_through(seen: list[tuple[int, float]]) -> None:
    largest = max(peak for peak, _ in seen)

    def rate(a: int) -> float:
        fits = sum(peak <= a for peak, _ in seen)
        seconds = sum(t * (2 if peak > a else 1) for peak, t in seen)
        return (largest / a * fits + (len(seen) - fits)) / seconds

    assert rate(maximum_throughput(seen)) >= max(rate(a) for a, _ in seen) * (1 - 1e-9)


def test_first_allocation_gives_whole_nodes_until_25_calls_have_finished() -> None:
    sizer = FirstAllocation()
    saw(sizer, *[100] * 24)
    assert first(sizer) == LARGEST.memory
    saw(sizer, 100)
    assert first(sizer) == 100
    saw(sizer, 500)
    assert first(sizer) == LARGEST.memory


@given(seen=peaks)
def test_buckets_end_with_the_last_peak_and_do_not_waste_more_than_one(
    seen: list[tuple[int, float]],
) -> None:
    ordered = sorted(seen)
    whole = waste(ordered, [len(ordered) - 1])
    for split in (greedy, exhaustive):
        breaks = split(ordered)
        assert breaks == sorted(set(breaks))
        assert breaks[-1] == len(ordered) - 1
    assert waste(ordered, exhaustive(ordered)) <= whole + 1e-9


def test_two_levels_are_two_buckets() -> None:
    ordered = [(100, 1.0)] * 30 + [(1000, 1.0)] * 3
    assert greedy(ordered) == [29, 32]
    assert exhaustive(ordered) == [29, 32]


def test_one_level_is_one_bucket() -> None:
    ordered = [(100, 1.0)] * 30
    assert greedy(ordered) == exhaustive(ordered) == [29]


@pytest.mark.parametrize("make", [GreedyBucketing, ExhaustiveBucketing])
def test_buckets_are_drawn_by_weight_and_climbed_after_a_failure(
    make: type[GreedyBucketing],
) -> None:
    sizer = make()
    assert first(sizer) == 1_000_000_000
    saw(sizer, *[100] * 16, *[1000] * 4)
    drawn = [first(sizer) for _ in range(100)]
    assert set(drawn) == {100, 1000}
    assert drawn.count(100) > 50
    assert after(sizer, 100) == 1000
    assert after(sizer, 1000) == 2000
    assert after(sizer, 2000, attempt=3) == LARGEST.memory


@given(seen=st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_a_percentile_is_what_so_many_stay_below(seen: list[int]) -> None:
    sizer = Percentile(0.5)
    saw(sizer, *seen)
    size = first(sizer)
    assert sum(used <= size for used in seen) >= len(seen) / 2
    assert after(sizer, size) >= 2 * size


def test_a_percentile_is_a_share() -> None:
    with pytest.raises(ValueError, match="95"):
        Percentile(95)


def test_the_ensemble_finds_what_a_feature_tells() -> None:
    sizer = Ensemble()
    for n in range(1, 30):
        saw(sizer, n * 1_000_000, size=float(n))
    assert 24_900_000 <= first(sizer, size=25.0) <= 30_000_000
    assert after(sizer, 5_000_000) == 29_000_000


def test_the_oracle_knows() -> None:
    sizer = Oracle()
    features = {"oracle.memory": 5e9, "oracle.cores": 0.5}
    found = sizer.allocate("f", features, attempt=0, previous=None, largest=LARGEST)
    assert found == Resources(cores=0.5, memory=5_000_000_000)
