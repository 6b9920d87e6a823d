"""The models behind the default sizer, held against plain definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._core.sizers.cost import Choice, Judged, choose
from afarm._core.sizers.models import Median, Nearest, linear, power_law, recent

values = st.floats(-20, 20)


@given(samples=st.lists(values, min_size=1, max_size=40))
def test_the_recent_median_is_that_of_the_last_twelve(samples: list[float]) -> None:
    model = recent()
    for y in samples:
        model.learn(None, y)
    last = sorted(samples[-12:])
    assert model.predict(None) == last[len(last) // 2]


def test_a_model_that_has_seen_nothing_says_nothing() -> None:
    for model in (Median(), recent(), power_law(), linear(), Nearest()):
        assert model.predict(1.0) is None


@given(samples=st.lists(st.tuples(values, values), min_size=1, max_size=60), x=values)
def test_neighbours_are_the_closest_ones(samples: list[tuple[float, float]], x: float) -> None:
    model = Nearest()
    for feature, y in samples:
        model.learn(feature, y)
    found = model.predict(x)
    distances = sorted(abs(feature - x) for feature, _ in samples)
    reach = distances[min(5, len(samples)) - 1]
    assert found in [y for feature, y in samples if abs(feature - x) <= reach]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_a_power_law_is_found(exponent: float) -> None:
    model = power_law()
    for n in range(1, 20):
        model.learn(math.log(n), math.log(3.0) + exponent * math.log(n))
    assert model.predict(math.log(15)) == pytest.approx(math.log(3 * 15**exponent))


def test_a_line_with_a_base_is_found() -> None:
    model = linear()
    for n in range(1, 20):
        model.learn(math.log(n), math.log(500 + 7 * n))
    assert model.predict(math.log(30)) == pytest.approx(math.log(500 + 7 * 30))


def test_a_regression_does_not_go_far_beyond_what_it_has_seen() -> None:
    model = power_law()
    for n in range(1, 20):
        model.learn(math.log(n), 2 * math.log(n))
    at_most = 2 * (math.log(19) + math.log(4))
    assert model.predict(math.log(1e9)) == pytest.approx(at_most)


@given(
    errors=st.lists(st.floats(-2, 2), min_size=1, max_size=48),
    growth=st.sampled_from([None, 0.2]),
)
def test_the_margin_is_one_of_the_errors_or_a_little_above_the_largest(
    errors: list[float], growth: float | None
) -> None:
    judged = [Judged(10.0 + error, 1.0, (10.0,)) for error in errors]
    choice = choose(judged, 1, growth=growth)
    assert choice.model == 0
    found = [pytest.approx(error) for error in errors]
    assert choice.margin in [*found, pytest.approx(max(errors) + math.log1p(1 / len(errors)))]


def test_a_rare_giant_is_retried_instead_of_sizing_everyone_for_it() -> None:
    small, giant = math.log(100e6), math.log(10e9)
    judged = [Judged(small, 10.0, (small,))] * 47 + [Judged(giant, 10.0, (small,))]
    choice = choose(judged, 1, growth=None, fair=1e9)
    assert choice.margin == pytest.approx(0.0)


def test_of_two_kinds_that_nothing_tells_apart_both_are_sized_for_the_larger() -> None:
    small, large = math.log(1e9), math.log(1.5e9)
    judged = [Judged(small if n % 2 else large, 10.0, (small,)) for n in range(40)]
    assert choose(judged, 1, growth=None, fair=1e9).margin >= large - small - 1e-9


def test_the_model_that_was_right_is_believed() -> None:
    judged = [Judged(n, 1.0, (5.0, float(n), None)) for n in range(10)]
    assert choose(judged, 3, growth=None) == Choice(1, pytest.approx(0.0))
