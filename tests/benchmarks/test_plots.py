"""Plots: well-formed, and nothing that was measured is missing."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import packing_live, packing_replay
from benchmarks.__main__ import _plot
from benchmarks.figures import Figure, merge, rows
from benchmarks.plots import Dot, bars, dots

SVG = "{http://www.w3.org/2000/svg}"
names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}title")]


@given(
    rows=st.dictionaries(
        names,
        st.lists(
            st.builds(Dot, names, st.floats(1e-3, 1e6) | st.just(math.inf), names), max_size=5
        ),
        max_size=20,
    ),
    logarithmic=st.booleans(),
)
def test_every_row_and_every_dot_is_drawn_within_the_picture(
    rows: dict[str, list[Dot]], logarithmic: bool
) -> None:
    svg = dots("<title>", rows, dict.fromkeys(rows, 2.0), logarithmic=logarithmic)
    shown = texts(svg)
    assert shown[0] == "<title>"
    for name, row in rows.items():
        assert name in shown
        for dot in row:
            assert {dot.kind, dot.variant} <= set(shown)
    root = ElementTree.fromstring(svg)
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx", "-1")) <= float(root.get("width", "0"))
        assert 0 <= float(circle.get("cy", "-1")) <= float(root.get("height", "0"))
    everything = sum(map(len, rows.values()))
    assert len(titles(svg)) == everything + len(rows)


@given(
    rows=st.dictionaries(names, st.dictionaries(names, st.floats(0, 1e9), max_size=3), max_size=10)
)
def test_bars_are_as_long_as_what_they_stand_for(rows: dict[str, dict[str, float]]) -> None:
    svg = bars("waste", rows)
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    drawn = [rect for rect in rects if rect.find(f"{SVG}title") is not None]
    values = [value for parts in rows.values() for value in parts.values()]
    assert len(drawn) == len(values)
    lengths = [float(rect.get("width", "-1")) for rect in drawn]
    largest = max(values, default=0.0)
    for value, length in zip(values, lengths, strict=True):
        scale = lengths[values.index(largest)]
        assert length == pytest.approx(scale * value / (largest or 1.0), abs=0.3)


def replayed() -> list[Figure]:
    """Figures of each sizer on two traces, as `packing_replay` measures them."""
    found = []
    for number, subject in enumerate(packing_replay.SUBJECTS):
        for metric in (packing_replay.MAKESPAN, packing_replay.EFFICIENCY):
            found.append(Figure(subject, metric, "", (1.0 + number,)))
            found.append(Figure(subject, metric, "", (0.5,), "drift, balanced"))
            found.append(Figure(subject, metric, "", (math.inf,), "bimodal, balanced"))
        found.append(Figure(subject, packing_replay.UNUSED, "", (5.0,)))
        found.append(Figure(subject, packing_replay.LOST, "", (3.0,)))
    return found


def test_each_sizer_is_in_each_plot_of_a_replay() -> None:
    plots = packing_replay.plots(merge(replayed()))
    assert list(plots) == ["makespan", "efficiency", "waste"]
    for svg in plots.values():
        shown = texts(svg)
        assert set(packing_replay.SUBJECTS) <= set(shown)
    assert {"drift", "bimodal", "balanced"} <= set(texts(plots["makespan"]))
    assert titles(plots["makespan"]).count("bimodal, balanced: never") == len(
        packing_replay.SUBJECTS
    )
    assert {"held unused", "lost in failures"} <= set(texts(plots["waste"]))


def test_each_subject_is_in_each_plot_of_the_live_experiment() -> None:
    figures = [
        Figure(subject, metric, unit, (2.0,))
        for subject in packing_live.SUBJECTS
        for metric, unit in (("time", "s"), ("used of allocated", ""), ("peak of a host", "B"))
    ]
    plots = packing_live.plots(figures)
    assert list(plots) == ["time", "efficiency", "peak"]
    for svg in plots.values():
        assert set(packing_live.SUBJECTS) <= set(texts(svg))


def test_parts_are_in_no_table() -> None:
    heads, body = rows(replayed())
    assert packing_replay.MAKESPAN in heads
    assert all("inf" not in cell for row in body for cell in row)


def test_plots_lie_beside_the_figures(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.RESULTS", tmp_path)
    _plot("packing_replay", packing_replay, replayed())
    assert capsys.readouterr().out.count("packing_replay-") == 3
    written = sorted(path.name for path in tmp_path.iterdir())  # type: ignore[attr-defined]
    assert written[1] == "packing_replay-makespan.svg"
