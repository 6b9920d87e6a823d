"""Whether something is found under its name by whoever imports its module."""

from __future__ import annotations

import sys

_MISSING = object()


def importable(value: object) -> bool:
    """Whether a node that has a function's or class's module finds this very object under its name.

    A decorated function is not: its name leads to its wrapper. A wrapper may have the name.
    """
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not module or not name or module in ("__main__", "__mp_main__") or "<locals>" in name:
        return False
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, _MISSING)
    return found is value
