"""When one call among 100 neighbours is killed by SIGKILL, who else suffers?

The kernel does this to the process that takes the last memory. Counted: neighbours that
finish with their result, and the time from the submission of the killed call to its answer.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import calls
from .figures import Figure
from .peers import NAMES, make_peer
from .question import aim, median_of

NEIGHBOURS = 100
# Where among the neighbours the victim stands: with two workers it runs beside some.
AT = 50
# 100 neighbours of 20 ms on two workers take a second; who has not answered after
# this long is waiting for a process that is gone.
PATIENCE = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the systems compared: the floors have nothing that could survive."""
    return [name for name in NAMES if not name.startswith("floor")]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Let one call be killed among its neighbours, once."""
    peer = make_peer(subject)
    peer.open()
    work: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (calls.neighbour, (number,)) for number in range(NEIGHBOURS)
    ]
    work.insert(AT, (calls.die, ()))
    answers = peer.answers(work, PATIENCE)
    victim = answers.pop(AT)
    well = sum(answer.value == number for number, answer in enumerate(answers))
    figures = [
        Figure(subject, f"of {NEIGHBOURS} neighbours finish", "", (float(well),)),
        Figure(subject, "killed call told", "", (float(victim.error not in ("", "no answer")),)),
    ]
    # Alone, so that no neighbour ahead of it counts; a pool that is broken stays so.
    began = time.perf_counter()
    [alone] = peer.answers([(calls.die, ())], PATIENCE)
    if well == NEIGHBOURS and alone.error not in ("", "no answer"):
        figures.append(Figure(subject, "told after", "s", (time.perf_counter() - began,)))
    # A peer that lost its workers may never close; then the harness ends what is left.
    closing = threading.Thread(target=peer.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    return figures


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for name in NAMES:
        if "afarm" not in name:
            continue
        well = median_of(figures, name, f"of {NEIGHBOURS} neighbours finish")
        told = median_of(figures, name, "told after")
        if well is not None:
            lines.append(aim(f"{name}, neighbours that finish", well, NEIGHBOURS))
        if told is not None:
            lines.append(aim(f"{name}, told", told, 0.1, at_most=True, unit=" s"))
    return lines
