"""What a benchmark is, for the harness: a module with a question in its docstring."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Protocol

from .figures import Figure


class CannotMeasure(Exception):
    """A subject cannot be measured here; the message says why. It is left out with that word."""


class Question(Protocol):
    """What each benchmark module has. Measuring happens in a fresh process each time.

    One whose figures are better seen than read has besides ``plots(figures)``, which returns SVG
    by the name that it is to have beside the figures.
    """

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options of its own."""

    def subjects(self, options: argparse.Namespace) -> Sequence[str]:
        """Return the names of what is measured, in the order of the table."""

    def measure(self, subject: str, options: argparse.Namespace) -> list[Figure]:
        """Measure one subject once: one value for each metric."""

    def conclude(self, figures: Sequence[Figure]) -> list[str]:
        """Return what follows, one line each: which aims are reached."""


def aim(name: str, value: float, wanted: float, *, at_most: bool = False, unit: str = "") -> str:
    """Return one line that says whether a figure reaches what it should."""
    reached = value <= wanted if at_most else value >= wanted
    bound = "at most" if at_most else "at least"
    verdict = "reached" if reached else "MISSED "
    return f"{verdict}  {name}: {value:.4g}{unit} ({bound} {wanted:g}{unit})"


def median_of(figures: Sequence[Figure], subject: str, metric: str) -> float | None:
    """Return the median of one subject's metric, or ``None`` if it was left out."""
    for figure in figures:
        if figure.subject == subject and figure.metric == metric and not figure.part:
            return figure.median
    return None
