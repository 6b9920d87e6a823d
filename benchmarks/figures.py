"""Figures: what was measured, over several rounds, and the tables made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one subject, a value for each round.

    Attributes:
        subject: Who was measured: ``"afarm reuse"``, ``"Dask"``.
        metric: What: ``"calls/s"``, ``"p50"``.
        unit: ``"/s"``, ``"s"``, ``"B"``, ``"B/s"``, or empty for a plain count.
        values: One for each round.
        part: Of which part of what was measured, where it is not all of it. Those are for plots,
            and in no table.
    """

    subject: str
    metric: str
    unit: str
    values: tuple[float, ...]
    part: str = ""

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A subject that could not be measured here, and why."""

    subject: str
    reason: str


def merge(rounds: Iterable[Figure]) -> list[Figure]:
    """Return one figure for each subject, metric and part, with the values of all rounds."""
    merged: dict[tuple[str, str, str], Figure] = {}
    for figure in rounds:
        key = figure.subject, figure.metric, figure.part
        before = merged[key].values if key in merged else ()
        merged[key] = replace(figure, values=before + figure.values)
    return list(merged.values())


def show(value: float, unit: str) -> str:
    """Return a value for people, with three digits that count."""
    if unit == "s":
        for limit, factor, name in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
            if abs(value) < limit:
                return f"{value * factor:.3g} {name}"
        return f"{value:.2f} s"
    if unit in ("B", "B/s"):
        for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}{unit[1:]}"
        return f"{value:.0f} {unit}"
    if abs(value) >= 100:
        return f"{value:,.0f}{unit}"
    return f"{value:.3g}{unit}"


def cell(figure: Figure) -> str:
    """Return ``"0.21 ms (0.19 ms to 0.25 ms)"``: the median, and the spread over rounds."""
    shown = show(figure.median, figure.unit)
    if len(figure.values) < 2:
        return shown
    low, high = (show(end, figure.unit) for end in (min(figure.values), max(figure.values)))
    return shown if low == high else f"{shown} ({low} to {high})"


def rows(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of a table: a row for each subject, a column each metric."""
    figures = [figure for figure in figures if not figure.part]
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    subjects = list(dict.fromkeys(figure.subject for figure in figures))
    cells = {(figure.subject, figure.metric): cell(figure) for figure in figures}
    return (
        ["", *metrics],
        [[name, *(cells.get((name, metric), "-") for metric in metrics)] for name in subjects],
    )


def text_table(figures: Sequence[Figure]) -> str:
    """Return the table in plain text."""
    heads, body = rows(figures)
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, ["-" * width for width in widths], *body)
    )


def markdown_table(figures: Sequence[Figure]) -> str:
    """Return the table in Markdown, as the README quotes it."""
    heads, body = rows(figures)
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
