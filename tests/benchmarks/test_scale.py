"""The core on its own, at a size that says nothing of its speed."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import scale

SMALL = argparse.Namespace(part=0.002, categories=20, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("subject", [scale.FEW, *scale.LEARNED])
def test_every_call_of_a_run_ends_within_a_small_multiple_of_the_bound(subject: str) -> None:
    figures = {figure.metric: figure.median for figure in scale.measure(subject, SMALL)}
    assert 1.0 <= figures[scale.MAKESPAN] < 5.0
    assert figures[scale.RATE] > 0


def test_of_a_long_run_the_beginning_is_enough() -> None:
    run = scale._Run(scale.SUBJECTS[scale.MANY], SMALL)
    run.run()
    assert not run.is_over
    assert run.placements >= 500


def test_a_run_is_the_same_each_time() -> None:
    runs = []
    for _ in range(2):
        run = scale._Run(scale.SUBJECTS[scale.FEW], SMALL)
        run.run()
        runs.append((run.placements, run.at, run.core_seconds))
    assert runs[0] == runs[1]
