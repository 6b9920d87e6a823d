"""What a node must have to unpickle something: the modules of the classes and functions in it.

Noted while pickling, which meets each class and function anyway: 0.3 us for each, and nothing
for numbers, text, and containers of them.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TypeAlias
from weakref import WeakKeyDictionary

from .importing import importable

_EVERYWHERE = frozenset(
    {*sys.stdlib_module_names, *sys.builtin_module_names, "afarm", "cloudpickle"}
)


# Of what is met while pickling, what may need something.
NEEDING = (type, FunctionType, BuiltinFunctionType, ModuleType)


class ByValue:
    """A class or function that travels by value; what it refers to is to be looked for.

    Functions that were made of the same code are one need: lambdas in a loop.
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: type | FunctionType) -> None:
        self.value = value
        self._key = value.__code__ if isinstance(value, FunctionType) else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByValue) and self._key is other._key

    def __hash__(self) -> int:
        return id(self._key)


Need: TypeAlias = "str | ByValue"  # the name of a module, or what is itself to be analysed

_of_types: WeakKeyDictionary[type, Need | None] = WeakKeyDictionary()


def need_of(found: object) -> Need | None:
    """Return what a node needs for one object that was met while pickling, if anything."""
    if isinstance(found, type):
        if found not in _of_types:
            _of_types[found] = _find(found)
        return _of_types[found]
    if isinstance(found, (FunctionType, BuiltinFunctionType)):
        return _find(found)
    if isinstance(found, ModuleType):
        return None if _is_everywhere(found.__name__) else found.__name__
    return None


def _find(found: type | FunctionType | BuiltinFunctionType) -> Need | None:
    module: Hashable = found.__module__
    if isinstance(module, str) and _is_everywhere(module):
        return None
    if importable(found):
        return str(module)
    return None if isinstance(found, BuiltinFunctionType) else ByValue(found)


def _is_everywhere(module: str) -> bool:
    return module != "__main__" and module.partition(".")[0] in _EVERYWHERE
