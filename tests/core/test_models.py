"""The models behind the default sizer, held against plain definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._core.sizers.cost import Choice, Judgement
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


def test_of_neighbours_that_are_equally_close_the_latest_count() -> None:
    model = Nearest()
    for y in range(300):
        model.learn(1.0, float(y))
        model.learn(2.0, 500.0)
    assert model.predict(1.0) == 297.0


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


def test_a_regression_never_says_more_than_there_can_be() -> None:
    model = power_law()
    for n in range(10):
        model.learn(18 + 0.001 * n, float(n))
    assert model.predict(18 + math.log(4)) == 60.0
    assert model.predict(18 - math.log(4)) == -60.0


# --- which one is believed

Said = tuple[float, float, tuple[float | None, ...]]  # need, seconds, answers


def judgement(calls: Sequence[Said], models: int = 1) -> Judgement:
    judged = Judgement(models, 48)
    for need, seconds, said in calls:
        judged.add(need, seconds, said)
    return judged


def with_answers(calls: Sequence[Said], model: int) -> list[tuple[float, float, float]]:
    """Return need, seconds and the model's answer of those calls that it answered for."""
    return [(need, s, answer) for need, s, said in calls if (answer := said[model]) is not None]


def cost(
    calls: Sequence[Said], model: int, margin: float, growth: float | None, fair: float
) -> float:
    """What a margin would have cost, call by call, as a multiple of what was used."""
    wasted, used = 0.0, []
    for need, seconds, answer in with_answers(calls, model):
        granted = math.exp(answer + margin)
        used.append(math.exp(need) * seconds)
        if need - answer <= margin:
            wasted += granted * seconds
        elif growth is not None:
            wasted += (1 + growth) * used[-1]
        else:
            wasted += 0.6 * (granted + fair) * seconds + 2 * used[-1]
    if growth is None:
        wasted += 3 * max(used) / (len(used) + 1)
    return wasted / sum(used)


QUANTILES = (0.5, 0.7, 0.85, 0.93, 1.0)
answers = st.floats(10, 14)
said_calls = st.lists(
    st.tuples(answers, st.floats(0.1, 100.0), st.tuples(answers, st.none() | answers)),
    min_size=1,
    max_size=48,
)


@given(
    calls=said_calls,
    growth=st.sampled_from([None, 0.2]),
    fair=st.sampled_from([0.0, 1e5]),
)
def test_no_margin_of_any_model_would_have_cost_less_than_the_one_that_is_chosen(
    calls: list[Said], growth: float | None, fair: float
) -> None:
    choice = judgement(calls, 2).choose(growth=growth, fair=fair)
    chosen = cost(calls, choice.model, choice.margin, growth, fair)
    for model in range(2):
        errors = sorted(need - answer for need, _, answer in with_answers(calls, model))
        if 3 * len(errors) >= 2 * len(calls):
            quantiles = [errors[min(len(errors) - 1, int(q * len(errors)))] for q in QUANTILES]
            for margin in [*quantiles, errors[-1] + math.log1p(1 / len(errors))]:
                assert chosen <= cost(calls, model, margin, growth, fair) * (1 + 1e-6)


@given(
    errors=st.lists(st.floats(-2, 2), min_size=1, max_size=48),
    growth=st.sampled_from([None, 0.2]),
)
def test_the_margin_is_one_of_the_errors_or_a_little_above_the_largest(
    errors: list[float], growth: float | None
) -> None:
    choice = judgement([(10.0 + error, 1.0, (10.0,)) for error in errors]).choose(growth=growth)
    assert choice.model == 0
    found = [pytest.approx(error) for error in errors]
    assert choice.margin in [*found, pytest.approx(max(errors) + math.log1p(1 / len(errors)))]


def test_a_rare_giant_is_retried_instead_of_sizing_everyone_for_it() -> None:
    small, giant = math.log(100e6), math.log(10e9)
    judged = judgement([(small, 10.0, (small,))] * 47 + [(giant, 10.0, (small,))])
    assert judged.choose(growth=None, fair=1e9).margin == pytest.approx(0.0)


def test_of_two_kinds_that_nothing_tells_apart_both_are_sized_for_the_larger() -> None:
    small, large = math.log(1e9), math.log(1.5e9)
    judged = judgement([(small if n % 2 else large, 10.0, (small,)) for n in range(40)])
    assert judged.choose(growth=None, fair=1e9).margin >= large - small - 1e-9


def test_the_model_that_was_right_is_believed() -> None:
    judged = judgement([(float(n), 1.0, (5.0, float(n), None)) for n in range(10)], 3)
    assert judged.choose(growth=None) == Choice(1, pytest.approx(0.0))


@given(
    before=st.lists(st.floats(10, 14), max_size=20),
    errors=st.lists(st.floats(-2, 2), min_size=1, max_size=60),
    over=st.floats(-2, 2),
)
def test_what_is_granted_beyond_a_prediction_holds_four_in_five_of_the_last_that_outgrew_it(
    before: list[float], errors: list[float], over: float
) -> None:
    judged = judgement([(need, 1.0, (12.0,)) for need in before])
    judged.margin_beyond(0, over)
    for error in errors:
        judged.add(12.0 + error, 1.0, (12.0,))
    last = [need - 12.0 for need in [*before, *(12.0 + error for error in errors)]][-48:]
    beyond = sorted(error for error in last if error > over)
    found = judged.margin_beyond(0, over)
    if not beyond:
        assert found is None
    else:
        assert found in beyond
        assert sum(error <= found for error in beyond) >= 0.8 * len(beyond)
