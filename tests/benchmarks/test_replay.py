"""Replays of traces: arithmetic that can be checked by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._core import events as event
from afarm._core.farm_state import FarmState
from afarm.resources import Resources
from afarm.sizing import AutoSizer, Fixed, Unmanaged, WholeNode
from benchmarks.replay.farm import FARMS
from benchmarks.replay.simulation import Simulation, replay
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


class Timed(Simulation):
    """A replay that notes how long the calls of each category took."""

    def _end(self, attempt: Any, ending: event.Event) -> None:
        self.took: dict[str, list[float]] = vars(self).setdefault("took", defaultdict(list))
        self.took[attempt.call.category].append(self._at - attempt.started)
        super()._end(attempt, ending)


@pytest.mark.parametrize("mode", ["elastic", "live"])
def test_calls_that_mostly_wait_share_cores_and_slow_nobody_who_computes(mode: str) -> None:
    waiting = [Call("waits", 50 * MB, 0.05, 10.0)] * 80
    computing = [Call("computes", 50 * MB, 1.0, 60.0)] * 6
    calls = [*waiting[:40], *computing, *waiting[40:]]
    a_core_for_each = Fixed(Resources(cores=1, memory=50 * MB))
    apart = replay(calls, [NODE], a_core_for_each)
    shared = Timed(calls, [NODE], FarmState(AutoSizer(), mode))
    assert shared.run().makespan < 0.6 * apart.makespan
    assert len(shared.took["computes"]) == 6
    assert max(shared.took["computes"]) == pytest.approx(60.0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hard", "elastic", "live"])
@pytest.mark.parametrize("name", sorted(made(1)))
def test_every_call_returns_and_no_node_runs_out_of_memory(mode: str, name: str) -> None:
    calls = sample(made(120, seed=5)[name], 120)
    for farm in FARMS.values():
        outcome = replay(calls, farm(calls), AutoSizer(), mode=mode)
        assert outcome.makespan < float("inf")
        assert outcome.crashes == 0
