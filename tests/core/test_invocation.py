from __future__ import annotations

import itertools

import pytest

from afarm._core.invocation import HOLDING, TRANSITIONS, Invocation, State, Step
from afarm._core.request import Request
from afarm.errors import LocalProtocolError

ALL = list(itertools.product(State, Step))


def an_invocation(state: State) -> Invocation:
    invocation = Invocation(7, Request("f"), 0.0)
    invocation.state = state
    return invocation


@pytest.mark.parametrize(("state", "step"), ALL)
def test_a_step_leads_where_the_table_says_or_is_an_error_naming_both(
    state: State, step: Step
) -> None:
    invocation = an_invocation(state)
    after = TRANSITIONS.get((state, step))
    if after is not None:
        invocation.step(step)
        assert invocation.state is after
    else:
        words = step.name.lower().replace("_", " ")
        with pytest.raises(LocalProtocolError, match=f"7 is {state.name.lower()}: {words}"):
            invocation.step(step)
        assert invocation.state is state


def test_every_state_is_reached_from_waiting_and_leads_to_the_end() -> None:
    def reach(start: State) -> set[State]:
        seen, todo = {start}, [start]
        while todo:
            state = todo.pop()
            for (before, _), after in TRANSITIONS.items():
                if before is state and after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert reach(State.WAITING) == set(State)
    assert all(State.GONE in reach(state) for state in State)


def test_nothing_happens_to_what_is_gone() -> None:
    assert not [state for state, _ in TRANSITIONS if state is State.GONE]


def test_an_allocation_is_held_from_start_or_take_over_until_the_attempt_is_over() -> None:
    gaining = {
        step
        for (before, step), after in TRANSITIONS.items()
        if before not in HOLDING and after in HOLDING
    }
    losing = {
        step
        for (before, step), after in TRANSITIONS.items()
        if before in HOLDING and after not in HOLDING
    }
    assert gaining == {Step.START, Step.TAKE_OVER}
    assert losing == {Step.AGAIN, Step.COMPLETE}
