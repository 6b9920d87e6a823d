from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afarm._core.category import REUSE_BELOW, REUSE_UNTIL, Category
from afarm._core.sizers.base import MOST_CATEGORIES
from tests.core.driving import Driver

walls = st.floats(0, 1000)


def after(*wall_times: float) -> Category:
    category = Category("f")
    for wall_time in wall_times:
        category.finish(wall_time)
    return category


@given(st.lists(walls, min_size=1, max_size=8))
def test_of_the_first_ones_the_expected_wall_time_is_the_mean(found: list[float]) -> None:
    expected = after(*found).wall_time
    assert expected is not None
    assert abs(expected - sum(found) / len(found)) < 1e-6


@given(st.lists(walls, min_size=1), walls)
def test_it_follows_a_change_and_never_leaves_the_range_seen(
    found: list[float], now: float
) -> None:
    expected = after(*found).wall_time
    assert expected is not None
    assert min(found) - 1e-9 <= expected <= max(found) + 1e-9
    changed = after(*found, *[now] * 400).wall_time
    assert changed is not None
    assert abs(changed - now) < 1e-6 + 1e-6 * max(found)


def test_nothing_is_expected_before_the_first() -> None:
    assert Category("f").wall_time is None


def test_processes_are_reused_after_four_short_calls() -> None:
    assert not after(0.001, 0.001, 0.001).reuse
    assert after(0.001, 0.001, 0.001, 0.001).reuse
    assert not after(*[REUSE_BELOW] * 10).reuse


def test_between_the_two_limits_it_stays_as_it_is() -> None:
    between = (REUSE_BELOW + REUSE_UNTIL) / 2
    assert after(*[0.001] * 4, *[between] * 50).reuse
    assert not after(*[1.0] * 4, *[between] * 50).reuse
    assert not after(*[0.001] * 4, *[2 * REUSE_UNTIL] * 50).reuse


def test_categories_made_up_for_each_call_are_forgotten() -> None:
    farm = Driver("a")
    for number in range(MOST_CATEGORIES + 50):
        farm.finish(farm.call(category=f"f{number}"))
    assert len(farm.state._categories) == MOST_CATEGORIES
