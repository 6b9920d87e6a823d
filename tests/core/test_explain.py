"""What nodes say to an invocation that waits, against whether it would start there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afarm._core.actions import Start
from afarm._core.events import AddNode, NodeUp, Request, Seconds, Submit
from afarm._core.explain import judge
from afarm._core.farm_state import FarmState
from afarm._core.node import NodeState, NodeView
from afarm.resources import Resources
from afarm.sizing import Unmanaged

GIB = 1 << 30


def node(
    state: NodeState = NodeState.UP, *, in_use: Resources | None = None, reason: str = ""
) -> NodeView:
    capacity = Resources(cores=4, memory=8 * GIB)
    return NodeView("lab1", state, reason, capacity, in_use or Resources(), 1, 0, False)


def test_each_obstacle_is_named() -> None:
    two = Resources(cores=2, memory=2 * GIB)
    assert judge(node(), two, None).open
    assert judge(node(), two, "lab2").why == "not asked: its user named lab2"
    lost = judge(node(NodeState.LOST, reason="connection closed"), two, None)
    assert (lost.open, lost.why) == (False, "is lost (connection closed)")
    small = judge(node(), Resources(cores=8), None)
    assert small.why == "too small: cores: 4 in all, 8 wanted"
    full = judge(node(in_use=Resources(cores=3, memory=7 * GIB)), two, None)
    assert full.why == (
        "full: cores: 1 of 4 free, 2 wanted; memory: 1.0 GiB of 8.0 GiB free, 2.0 GiB wanted"
    )


amounts = st.tuples(st.integers(1, 5), st.integers(1, 10))


@given(has=amounts, taken=amounts, wanted=amounts)
def test_a_node_says_it_is_open_where_an_invocation_would_start(
    has: tuple[int, int], taken: tuple[int, int], wanted: tuple[int, int]
) -> None:
    def resources(pair: tuple[int, int]) -> Resources:
        return Resources(cores=pair[0], memory=pair[1] * GIB)

    state = FarmState(Unmanaged())
    state.handle(AddNode("n", Seconds(0)))
    state.handle(NodeUp("n", resources(has), Seconds(0)))
    state.handle(Submit(1, Request("first", stated=resources(taken)), Seconds(1)))
    [view] = state.nodes()
    verdict = judge(view, resources(wanted), None)
    actions = state.handle(Submit(2, Request("second", stated=resources(wanted)), Seconds(2)))
    started = any(isinstance(action, Start) for action in actions)
    assert verdict.open == started
