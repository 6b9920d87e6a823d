"""What the demonstration's tables say of attempts that are made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.demo.summary import Tried, category_rows, mean, node_rows, peak, table
from afarm.resources import Resources, Usage

GIB = 1 << 30


def tried(
    start: float,
    wall: float,
    *,
    call: int = 1,
    category: str = "a",
    node: str = "n",
    memory: int = GIB,
) -> Tried:
    usage = Usage(wall_time=wall, cpu_user=wall / 2, memory=memory // 2, start=start)
    return Tried(call, category, node, Resources(cores=1.0, memory=memory), usage)


def test_attempts_that_follow_each_other_do_not_run_at_once() -> None:
    assert peak([tried(1, 2), tried(3, 2), tried(5, 1)], lambda _: 1) == 1


def test_attempts_that_overlap_add_up() -> None:
    assert peak([tried(1, 4), tried(2, 1), tried(2.5, 4)], lambda _: 1) == 3


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=30))
def test_the_peak_is_the_largest_number_that_runs_at_any_moment(
    spans: list[tuple[int, int]],
) -> None:
    ran = [tried(start, wall) for start, wall in spans]
    moments = [
        sum(start <= moment < start + wall for start, wall in spans) for moment in range(1, 71)
    ]
    assert peak(ran, lambda _: 1) == max(moments)


def test_the_average_counts_idle_time_too() -> None:
    assert mean([tried(0.5, 1), tried(9.5, 1)], lambda _: 1) == pytest.approx(0.2)


def test_a_category_is_summed_up_in_one_row() -> None:
    ran = [
        *(tried(1, 2, memory=GIB), tried(2, 4, call=2, memory=3 * GIB)),
        *(tried(9, 1, call=3, category="b"), tried(10, 1, call=3, category="b")),
    ]
    first, second = category_rows(ran)
    assert first == [
        *("a", "2", "0", "6.0 s", "3.00 s", "3.0 s"),
        *("1.0 GiB", "1.5 GiB", "2.0 GiB", "3.0 GiB", "2"),
    ]
    assert second[:3] == ["b", "1", "1"]


def test_a_node_that_ran_nothing_is_shown_empty() -> None:
    rows = node_rows([tried(1, 1)], {"n": Resources(cores=2.0, memory=4 * GIB), "m": Resources()})
    assert rows[0][:4] == ["n", "1", "2", "50 % (50 %)"]
    assert rows[1] == ["m", "0", "-", "-", "-", "-", "-", "-"]


def test_a_table_lines_up() -> None:
    lines = table(("name", "n"), [["a", "10"], ["long name", "2"]]).splitlines()
    assert lines == ["name        n", "---------  --", "a          10", "long name   2"]
