"""Replays of traces: arithmetic that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.resources import Resources
from afarm.sizing import AutoSizer, Fixed, Unmanaged, WholeNode
from benchmarks.replay.farm import FARMS
from benchmarks.replay.simulation import replay
from benchmarks.replay.trace import MB, RAMPS, Call, made, sample

NODE = Resources(cores=4, memory=1000 * MB)


@given(part=st.floats(0.0, 0.999), ramp=st.sampled_from(RAMPS))
def test_when_a_call_reaches_what_it_uses_then_belongs_together(
    part: float, ramp: tuple[float, ...]
) -> None:
    call = Call("f", 1000 * MB, 1.0, 10.0, ramp=ramp)
    memory = part * call.memory
    assert call.uses(call.reaches(memory)) == pytest.approx(memory, rel=1e-6, abs=1.0)
    assert call.uses(1.0) == call.memory


def test_calls_that_fit_run_side_by_side() -> None:
    calls = [Call("f", 200 * MB, 1.0, 10.0)] * 8
    outcome = replay(calls, [NODE], Fixed(Resources(cores=1, memory=200 * MB)))
    assert outcome.makespan == pytest.approx(20.0)
    assert outcome.efficiency == pytest.approx(1.0)
    assert outcome.retries == 0


def test_a_whole_node_for_each_runs_one_after_the_other() -> None:
    calls = [Call("f", 200 * MB, 1.0, 10.0)] * 8
    outcome = replay(calls, [NODE], WholeNode())
    assert outcome.makespan == pytest.approx(80.0)
    assert outcome.efficiency == pytest.approx(0.2)


def test_a_stopped_call_costs_the_time_it_ran() -> None:
    calls = [Call("f", 400 * MB, 1.0, 10.0)]
    outcome = replay(calls, [NODE], Fixed(Resources(cores=1, memory=200 * MB)))
    assert outcome.makespan == pytest.approx(10.0 * calls[0].reaches(200 * MB) + 10.0)
    assert outcome.retries == 1


def test_a_node_that_is_not_managed_runs_out_of_memory() -> None:
    calls = [Call("f", 400 * MB, 1.0, 10.0)] * 4
    outcome = replay(calls, [NODE], Unmanaged(), limited=False)
    assert outcome.crashes > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hard", "elastic", "live"])
@pytest.mark.parametrize("name", sorted(made(1)))
def test_every_call_returns_and_no_node_runs_out_of_memory(mode: str, name: str) -> None:
    calls = sample(made(120, seed=5)[name], 120)
    for farm in FARMS.values():
        outcome = replay(calls, farm(calls), AutoSizer(), mode=mode)
        assert outcome.makespan < float("inf")
        assert outcome.crashes == 0
