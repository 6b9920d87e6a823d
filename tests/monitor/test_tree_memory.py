"""The bracket of a tree's memory, held against processes whose memory is known at each moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afarm._monitor.tree_memory import Reading, TreeMemory

# What each of up to five processes has at each moment; None: it is not there.
MOMENTS = st.integers(1, 30)
AMOUNTS = st.integers(0, 100)


@st.composite
def histories(draw: st.DrawFn) -> list[list[int | None]]:
    length = draw(MOMENTS)
    found = []
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, length - 1))
        end = draw(st.integers(begin + 1, length))
        amounts = draw(st.lists(AMOUNTS, min_size=end - begin, max_size=end - begin))
        found.append([None] * begin + list(amounts) + [None] * (length - end))
    return found


def watched(histories: list[list[int | None]], every: int) -> TreeMemory:
    """Return what is found out when deaths are told at once and the rest at each look."""
    tree = TreeMemory()
    marks: dict[int, int] = {}
    for moment in range(len(histories[0])):
        for pid, history in enumerate(histories):
            had, has = history[moment - 1] if moment else None, history[moment]
            if had is not None and has is None:
                mark = marks.pop(pid)
                tree.died(pid, mark, mark)
        for pid, history in enumerate(histories):
            had, has = history[moment - 1] if moment else None, history[moment]
            if has is not None:
                if had is None:
                    tree.born(pid)
                marks[pid] = max(marks.get(pid, 0), has)
        if moment % every == every - 1:
            tree.look(
                {
                    pid: Reading(history[moment] or 0, 0, marks[pid])
                    for pid, history in enumerate(histories)
                    if history[moment] is not None
                }
            )
            marks = {pid: histories[pid][moment] or 0 for pid in marks}
    for pid in list(marks):
        tree.died(pid, marks[pid])
    tree.look({})
    return tree


def true_peak(histories: list[list[int | None]]) -> int:
    return max(sum(each or 0 for each in moment) for moment in zip(*histories, strict=True))


@given(histories(), st.integers(1, 10))
def test_the_bracket_holds_the_truth(histories: list[list[int | None]], every: int) -> None:
    tree = watched(histories, every)

    assert tree.low <= true_peak(histories) <= tree.high


@given(histories())
def test_a_look_at_each_moment_leaves_nothing_open_but_deaths(
    histories: list[list[int | None]],
) -> None:
    # All stay to the end: then the sum at each look is the truth.
    whole = [[amount or 0 for amount in history] for history in histories]
    tree = TreeMemory()
    for moment in zip(*whole, strict=True):
        tree.look({pid: Reading(amount, 0, amount) for pid, amount in enumerate(moment)})

    assert tree.low == tree.high == true_peak(histories)


def test_children_one_after_the_other_between_two_looks_are_not_summed() -> None:
    tree = TreeMemory()
    tree.look({1: Reading(10, 0, 10)})
    for child in range(2, 20):
        tree.born(child)
        tree.died(child, 50, 50)
    tree.look({1: Reading(10, 0, 12)})

    assert (tree.low, tree.high) == (50, 62)


def test_shared_memory_counts_once_in_what_is_certain() -> None:
    tree = TreeMemory()
    tree.look({pid: Reading(5, 100, 105) for pid in range(3)}, counted_twice=200)

    assert (tree.low, tree.high) == (115, 115)
