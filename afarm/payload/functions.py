"""Functions to bytes: by reference where they can be imported, else by value, as they are now."""

from __future__ import annotations

import hashlib
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import SerializationError
from .importing import importable
from .pickler import dumps

# A function that refers to something that can be changed in place is pickled for each
# call, so that the call sees it as it is; above this size only rebinding is noticed.
WATCH_LIMIT = 64 << 10

_MISSING = object()
_FIXED = (
    int, float, complex, str, bytes, bool, types.NoneType, types.ModuleType,
    types.BuiltinFunctionType, range, types.EllipsisType,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PickledFunction:
    """A function as nodes get it.

    Attributes:
        digest: SHA-256 of ``data``.
        data: Its pickle.
        by_reference: Whether nodes import it, rather than being sent its code.
    """

    digest: str
    data: bytes
    by_reference: bool


@dataclass(slots=True)
class _Watched:
    """A function that was pickled by value, and what its names stood for.

    What may refer back to the function is held weakly: a function often refers to itself,
    by its name or through a helper's globals, and would never be collected.
    """

    function: weakref.ref[types.FunctionType]
    code: types.CodeType
    defaults: tuple[Any, ...] | None
    held: list[tuple[str, object]] = field(default_factory=list)
    weak: list[tuple[str, weakref.ref[Any]]] = field(default_factory=list)
    cells: list[object] = field(default_factory=list)  # of each: its content, or a reference

    def note_global(self, name: str, value: object) -> None:
        """Note what a global name stands for."""
        found = _hold(value)
        if isinstance(found, weakref.ref):
            self.weak.append((name, found))
        else:
            self.held.append((name, value))

    def holds(self) -> bool:
        """Whether all names stand for the same objects now."""
        function = self.function()
        if (
            function is None
            or function.__code__ is not self.code
            or function.__defaults__ is not self.defaults
        ):
            return False
        look_up = function.__globals__.get
        for name, value in self.held:
            if look_up(name, _MISSING) is not value:
                return False
        for name, reference in self.weak:
            if look_up(name, _MISSING) is not reference():
                return False
        return not self.cells or self._cells_hold(function)

    def _cells_hold(self, function: types.FunctionType) -> bool:
        for cell, noted in zip(function.__closure__ or (), self.cells, strict=True):
            value = noted() if isinstance(noted, weakref.ref) else noted
            if _content(cell) is not value:
                return False
        return True


def _hold(value: object) -> object:
    """Return a weak reference where the value may refer back, else the value."""
    if value is not _MISSING and not isinstance(value, _FIXED):
        try:
            return weakref.ref(value)
        except TypeError:  # a list, a dict: cannot be referred to weakly
            pass
    return value


@dataclass(slots=True)
class _Known:
    pickled: PickledFunction
    watched: list[_Watched] = field(default_factory=list)
    changeable: bool = False

    def holds(self) -> bool:
        """Whether everything it refers to is still what it was."""
        if self.changeable and len(self.pickled.data) <= WATCH_LIMIT:
            return False
        for watched in self.watched:  # noqa: SIM110  # a generator costs half of this again
            if not watched.holds():
                return False
        return True


class FunctionPickles:
    """Pickles functions, each once for as long as nothing it refers to is rebound."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], _Known]] = {}

    def pickle(self, function: Callable[..., Any]) -> PickledFunction:
        """Return the pickle of a function as it is now.

        Raises:
            SerializationError: If it, or something it refers to, cannot be pickled.
        """
        entry = self._known.get(id(function))
        if entry is not None and entry[0]() is function and entry[1].holds():
            return entry[1].pickled
        known = _pickle(function)
        key = id(function)
        try:
            ref = weakref.ref(function, lambda _: self._known.pop(key, None))
        except TypeError:  # bound methods live shorter than a weak reference is of use
            return known.pickled
        if not isinstance(function, types.MethodType):
            self._known[key] = (ref, known)
        return known.pickled


def category_of(function: Callable[..., Any]) -> str:
    """Return the category of a function's invocations: its module and qualified name."""
    seen = function
    while True:
        inner = getattr(seen, "func", None)  # functools.partial
        if inner is None or not callable(inner):
            break
        seen = inner
    name = getattr(seen, "__qualname__", None) or type(seen).__qualname__
    module = getattr(seen, "__module__", None) or type(seen).__module__
    code = getattr(seen, "__code__", None)
    if "<lambda>" in name and code is not None:
        name += f":{code.co_firstlineno}"
    return f"{module}.{name}"


def _pickle(function: Callable[..., Any]) -> _Known:
    by_reference = importable(function)
    try:
        data = dumps(function)
    except Exception as exc:  # whatever a __reduce__ of the user's raises
        raise SerializationError(
            f"the function {category_of(function)} cannot be pickled: {exc}; pass what it refers "
            "to as an argument, or make it inside the function",
            part="function",
        ) from exc
    known = _Known(PickledFunction(hashlib.sha256(data).hexdigest(), data, by_reference))
    if not by_reference:
        _watch(function, known, set())
    return known


def _watch(value: object, known: _Known, seen: set[int]) -> None:
    """Note everything that a function pickled by value refers to."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        if importable(value):
            return
        watched = _Watched(weakref.ref(value), value.__code__, value.__defaults__)
        known.watched.append(watched)
        for name in dict.fromkeys(_names(value.__code__)):
            found = value.__globals__.get(name, _MISSING)
            watched.note_global(name, found)
            _watch(found, known, seen)
        for cell in value.__closure__ or ():
            content = _content(cell)
            watched.cells.append(_hold(content))
            _watch(content, known, seen)
        for default in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            _watch(default, known, seen)
        if value.__dict__ or value.__kwdefaults__:
            wrapped = value.__dict__.get("__wrapped__")
            _watch(wrapped, known, seen)
            known.changeable |= bool(set(value.__dict__) - {"__wrapped__"})
    elif isinstance(value, (tuple, frozenset)):
        for item in value:
            _watch(item, known, seen)
    elif value is not _MISSING and not isinstance(value, _FIXED):
        known.changeable |= not importable(value)


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names a code object and the functions inside it may look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return _MISSING
