"""What sizing costs, at a size that says nothing of its speed."""

from __future__ import annotations

import argparse

import pytest

from afarm.sizing import AutoSizer
from benchmarks import sizing

SMALL = argparse.Namespace(part=0.02, seed=1)


@pytest.mark.parametrize("kind", sizing.KINDS)
def test_both_costs_are_measured_of_each_kind(kind: str) -> None:
    figures = sizing.measure(f"{kind}, 1,000 calls", SMALL)
    assert [figure.metric for figure in figures] == [sizing.ALONE, sizing.FARM]
    assert figures[0].median > 0


def test_the_kinds_differ_in_what_their_features_tell() -> None:
    told = {}
    for kind in sizing.KINDS:
        sizer = AutoSizer()
        sizing.time_farm(list(sizing.calls_of(kind, 200, seed=1)), sizer)
        told[kind] = sizer.predicted_by("f0")
    assert told["no feature"] is None
    assert told["a feature of five values"] == "level"
    assert told["a feature, all values distinct"] == "size"
    assert told["eight features, all values distinct"] == "size"


def test_what_may_be_spent_is_at_the_end() -> None:
    figures = sizing.measure("no feature, 1,000 calls", SMALL)
    assert [line.split()[-2:] for line in sizing.conclude(figures)] == [
        ["50", "us)"],
        ["0.2", "s)"],
    ]
