"""The report of a run: one HTML page made from its record, with no network and no scripts."""

from __future__ import annotations

import os
from pathlib import Path

from .collect import collect
from .page import render
from .rows import ReportData

__all__ = ["ReportData", "collect", "render", "write"]


def write(record: Path, out: str | os.PathLike[str], *, run: int | None = None) -> None:
    """Write the report of a run, by default the last in the record; blocks.

    Raises:
        RecordError: If the file is no record, or has no such run.
        OSError: If the page cannot be written.
    """
    page = render(collect(record, run))
    Path(out).write_text(page, encoding="utf-8")
