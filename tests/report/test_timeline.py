"""Timelines against a definition that takes every moment by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.report.timeline import Timeline

moments = st.floats(-5, 25)
intervals = st.lists(st.tuples(moments, moments, st.floats(0, 100)), max_size=8)


@given(intervals, st.integers(1, 12))
def test_each_step_is_the_average_of_what_was_taken_in_it(
    taken: list[tuple[float, float, float]], steps: int
) -> None:
    timeline = Timeline(0.0, 20.0, steps)
    for begin, end, amount in taken:
        timeline.add(begin, end, amount)
    length = 20.0 / steps
    for at, average in enumerate(timeline.averages()):
        low, high = at * length, (at + 1) * length
        plain = sum(
            amount * max(0.0, min(end, high) - max(begin, low)) / length
            for begin, end, amount in taken
        )
        assert average == pytest.approx(plain, abs=1e-6)


def test_a_run_without_length_is_no_error() -> None:
    timeline = Timeline(5.0, 5.0, 4)
    timeline.add(4.0, 6.0, 1.0)
    assert len(timeline.averages()) == 4
    assert timeline.shares(0) == ()
