"""What sizers had learned when earlier runs ended."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecordError
from .schema import connect_to_read

# Categories that are taken along, the latest first: more than sizers remember at once.
_MOST = 10_000

# How far a category is trusted whose code has changed: most changes leave it as large as
# it was, and a few more samples soon say what is so now.
TRUST_IF_CHANGED = 0.25


@dataclass(frozen=True, slots=True)
class Learned:
    """What was known of one category, and how far it is to be trusted."""

    state: object
    trust: float


class LearnedSizes:
    """The states of one sizer's categories, by the digest of their code."""

    def __init__(self, states: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._states = states or {}

    @classmethod
    def read(cls, path: Path, sizer: str) -> LearnedSizes:
        """Return what a record holds; blocks.

        Raises:
            RecordError: If it cannot be read.
        """
        connection = connect_to_read(path)
        try:
            rows = connection.execute(
                "SELECT category, code, state FROM size WHERE sizer = ? ORDER BY at DESC LIMIT ?",
                (sizer, _MOST),
            ).fetchall()
        except sqlite3.Error as exc:
            raise RecordError(f"the sizes in {path} cannot be read: {exc}") from exc
        finally:
            connection.close()
        states: dict[str, dict[str, str]] = {}
        for category, code, state in rows:
            states.setdefault(category, {})[code] = state
        return cls(states)

    def of(self, category: str, code: str) -> Learned | None:
        """Return what was learned of this code, else of what last bore the category's name."""
        known = self._states.get(category)
        if not known:
            return None
        state = known.get(code)
        trust = 1.0
        if state is None:
            state = next(iter(known.values()))
            trust = TRUST_IF_CHANGED
        try:
            return Learned(json.loads(state), trust)
        except ValueError:
            return None

    def __len__(self) -> int:
        return len(self._states)
