"""Whether something is found under its name by whoever imports its module."""

from __future__ import annotations

import sys

import cloudpickle

_MISSING = object()

# These go by value in any case, or are everywhere.
_NEVER = frozenset({"__main__", "__mp_main__", "builtins", *sys.stdlib_module_names})

_by_value: dict[str, bool] = {}


def importable(value: object) -> bool:
    """Whether a node that has a function's or class's module finds this very object under its name.

    A decorated function is not: its name leads to its wrapper. A wrapper may have the name.
    """
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not module or not name or module in ("__main__", "__mp_main__") or "<locals>" in name:
        return False
    if has_no_file(module):
        return False
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, _MISSING)
    return found is value


def has_no_file(name: str) -> bool:
    """Whether a module that is imported cannot travel as a file: frozen, or made at run time.

    What it and its submodules define is pickled by value from then on.
    """
    top = name.partition(".")[0]
    known = _by_value.get(name)
    if known is None:
        module = sys.modules.get(name)
        if module is None or top in _NEVER:
            return False
        # Of a package with a file, such a module is made by it, there as it is here.
        root = sys.modules.get(top, module)
        known = not getattr(root, "__file__", None) and not getattr(root, "__path__", None)
        if known:
            cloudpickle.register_pickle_by_value(module)
        _by_value[name] = known
    return known
