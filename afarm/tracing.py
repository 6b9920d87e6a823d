"""Which calls' processes are traced: the first few of a category that starts any.

To trace is to know the peak of each process exactly (`_monitor.trace`), at some 0.2 ms for
each that is started. A few calls tell what a category's processes are like; from then on the
looks at the tree do.
"""

from __future__ import annotations

import json

from .resources import Usage

# Calls that would be traced if they started a process, and calls that did. A category whose
# first calls have started none is taken for one that does not.
_FIRST = 3
_ENOUGH = 5

# Categories that are remembered; a program that makes one for each call has endless ones.
MOST_CATEGORIES = 10_000


class Tracing:
    """What is known of one category's processes."""

    __slots__ = ("_with_children", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self._with_children = 0

    def settings(self, settings: str, stated: bool | None) -> str:
        """Return the settings of the next call, with the wish to trace it if that is so.

        Args:
            settings: JSON, or empty.
            stated: What the user stated: always, never, or nothing.
        """
        if stated is False or (stated is None and not self._is_early()):
            return settings
        self.sent += 1
        return json.dumps({**(json.loads(settings) if settings else {}), "trace": True})

    def _is_early(self) -> bool:
        return self.sent < _FIRST or 0 < self._with_children < _ENOUGH

    def observe(self, usage: Usage) -> None:
        """Note what a call used."""
        if usage.processes > 1:
            self._with_children += 1


class Tracings:
    """The categories of one farm, the last used last."""

    def __init__(self) -> None:
        self._known: dict[str, Tracing] = {}

    def of(self, category: str) -> Tracing:
        """Return what is known of a category."""
        found = self._known.pop(category, None) or Tracing()
        self._known[category] = found
        if len(self._known) > MOST_CATEGORIES:
            del self._known[next(iter(self._known))]
        return found
