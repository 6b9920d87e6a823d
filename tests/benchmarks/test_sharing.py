"""Sharing of cores on a real node, at a size that says nothing of its speed."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import sharing
from benchmarks.figures import Figure

SMALL = argparse.Namespace(waiting=2, computing=1)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("subject", sharing.subjects(SMALL))
def test_what_is_measured_depends_on_whether_anybody_waits(subject: str) -> None:
    figures = {figure.metric: figure.median for figure in sharing.measure(subject, SMALL)}
    assert (sharing.DONE in figures) == (subject != sharing.ALONE)
    assert figures[sharing.SLOWED] >= 0.9


def test_it_is_told_how_much_is_gained_and_what_it_costs() -> None:
    figures = [
        Figure(sharing.ALONE, sharing.SLOWED, "", (1.0,)),
        Figure(sharing.APART, sharing.DONE, "s", (30.0,)),
        Figure(sharing.APART, sharing.SLOWED, "", (1.0,)),
        Figure(sharing.SHARED, sharing.DONE, "s", (10.0,)),
        Figure(sharing.SHARED, sharing.SLOWED, "", (1.2,)),
    ]
    gain, *costs = sharing.conclude(figures)
    assert gain.startswith("reached")
    assert "3" in gain
    assert all(line.startswith("MISSED") for line in costs)
