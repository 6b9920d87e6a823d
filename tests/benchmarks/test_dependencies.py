"""What is measured of a function's packages, without a host to bring them to."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import dependencies
from benchmarks.figures import Figure

NOTHING = argparse.Namespace()


@pytest.mark.parametrize(("package", "most"), [("standard library", 0), ("numpy", 1)])
def test_an_analysis_says_what_travels(
    monkeypatch: pytest.MonkeyPatch, package: str, most: int
) -> None:
    monkeypatch.setenv("AFARM_CACHE", "")  # what it sets is taken back
    found = dependencies.measure(f"{package}, {dependencies.ANALYSIS}", NOTHING)
    figures = {figure.metric: figure.median for figure in found}

    assert figures["distributions"] == most
    assert (figures["files"] > 0) == (figures["bytes"] > 0) == (most > 0)
    assert figures["deflated"] <= figures["bytes"]


def test_cold_starts_are_held_against_the_floor_of_their_link() -> None:
    measured = {"cold": 3.0, "floor": 2.5, "warm": 0.9, "importing alone": 0.5}
    figures = [
        Figure(f"numpy, {link}", metric, "s", (value,))
        for link in (dependencies.FAST, "20 Mbit/s")
        for metric, value in measured.items()
    ]

    verdicts = [line.split()[0] for line in dependencies.conclude(figures)]

    assert verdicts == ["reached", "reached", "MISSED", "reached"]
