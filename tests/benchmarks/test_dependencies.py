"""What is measured of a function's packages, without a host to bring them to."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import dependencies
from benchmarks.figures import Figure
from benchmarks.installers import PIP, UV

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


def test_installers_are_asked_for_what_the_standard_library_does_not_have() -> None:
    asked = dependencies.subjects(NOTHING)
    assert "RDKit, 20 Mbit/s, uv pip install" in asked
    assert not any("pip" in subject for subject in asked if subject.startswith("standard library"))


def test_cold_starts_are_held_against_installers() -> None:
    took = {"": 3.0, f", {PIP}": 4.0, f", {UV}": 2.0}
    figures = [
        Figure(f"numpy, 20 Mbit/s{who}", metric, "s", (seconds,))
        for who, seconds in took.items()
        for metric in ("cold", "warm", "importing alone")
    ] + [Figure("numpy, 20 Mbit/s", "floor", "s", (4.0,))]

    lines = [line for line in dependencies.conclude(figures) if "pip" in line]

    assert [line.split()[0] for line in lines] == ["reached", "MISSED"]
