"""The tables of the benchmarks, and the harness around a question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as harness
from benchmarks.figures import Figure, cell, markdown_table, merge, show, text_table


def test_rounds_are_merged_into_a_median_and_a_spread() -> None:
    rounds = [Figure("a", "p50", "s", (value,)) for value in (0.003, 0.001, 0.002)]
    [merged] = merge(rounds)
    assert merged.median == 0.002
    assert cell(merged) == "2 ms (1 ms to 3 ms)"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0000123, "s", "12.3 µs"),
        (1.5, "s", "1.50 s"),
        (31234.0, "/s", "31,234/s"),
        (4.2e8, "B/s", "420 MB/s"),
        (512.0, "B", "512 B"),
        (3.0, "", "3"),
    ],
)
def test_a_value_is_shown_with_the_unit_that_suits_it(value: float, unit: str, shown: str) -> None:
    assert show(value, unit) == shown


def test_what_was_not_measured_is_a_dash() -> None:
    figures = [Figure("a", "x", "", (1.0,)), Figure("b", "y", "", (2.0,))]
    assert text_table(figures).splitlines()[2:] == ["a  1  -", "b  -  2"]
    assert markdown_table(figures).splitlines()[2] == "| a | 1 | - |"


def test_the_harness_lists_its_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{said}" for name in harness.QUESTIONS)
    assert said.count("?") == len(harness.QUESTIONS)


@pytest.mark.slow
@pytest.mark.integration
def test_a_question_is_answered_written_down_and_what_fails_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    few = ["--seconds", "0.02", "--most", "50", "--rounds", "2"]
    # parsl is no dependency of the tests: left out, with a word.
    assert harness.main(["overhead", *few, "--only", "fork and wait4", "Parsl"]) == 0
    written = json.loads((tmp_path / "overhead.json").read_text())
    rate = next(one for one in written["figures"] if one["unit"] == "/s")
    assert rate["subject"] == "floor: fork and wait4"
    assert len(rate["values"]) == 2
    assert min(rate["values"]) > 1
    assert [one["reason"] for one in written["left_out"]] == ["parsl is not installed"]
    assert "left out: Parsl" in capsys.readouterr().out
