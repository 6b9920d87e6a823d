"""What a function can reach: the modules it imports, each with where it was seen.

The walk follows globals that are looked up, closure cells, defaults, decorators,
partials, methods and callable objects, through every function that would be pickled
by value or that lies in the user's own modules. It imports and calls nothing.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import resolve_name
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

from ..payload.importing import has_no_file, importable
from .bytecode import ImportSite, read_code

# A function that refers to a large structure (a list of a million records) is looked
# through up to here; what stands behind would be the same types again.
_MOST_OBJECTS = 20_000
_MOST_ITEMS = 200
_STRUCTURAL = (dict, MethodType, property, functools.partial, functools.partialmethod)
_CODE = (FunctionType, staticmethod, classmethod, property, functools.partialmethod)
_PLAIN = (int, float, complex, str, bytes, bytearray, bool, type(None), type(...), range)


@dataclass(frozen=True, slots=True)
class Import:
    """A module that is needed.

    Attributes:
        module: Its absolute dotted name.
        where: Where it was seen, for people: ``area (demo.py:5)``.
        members: The names taken from it, any of which may be a submodule.
        optional: The function provides for its absence.
    """

    module: str
    where: str
    members: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """A global name that a function looks up, and what it stood for when it was scanned."""

    scope: dict[str, object]
    name: str
    token: object

    def holds(self) -> bool:
        """Return whether the name still stands for the same."""
        return same_token(self.token, token_of(self.scope.get(self.name)))


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` found.

    Attributes:
        imports: What is imported.
        bindings: What the answer rests on.
        groups: Texts any of which may name a group of entry points, each with its place.
    """

    imports: tuple[Import, ...]
    bindings: tuple[Binding, ...]
    groups: Mapping[str, str] = field(default_factory=dict)


def token_of(value: object) -> object:
    """Return what to keep of a value to notice that another one, that matters, took its place.

    Data of plain types is told by its type alone: it imports nothing.
    """
    kind = type(value)
    if issubclass(kind, (ModuleType, FunctionType, BuiltinFunctionType, type)):
        return value
    if issubclass(kind, _PLAIN):
        return _PLAIN
    return id(value)


def same_token(one: object, other: object) -> bool:
    """Return whether two tokens stand for values that need the same modules."""
    return one is other or (isinstance(one, int) and isinstance(other, int) and one == other)


def scan(roots: Iterable[object], *, own: Callable[[str], bool]) -> Scan:
    """Return every import that the roots can reach.

    Args:
        roots: Functions, or anything that is called like one.
        own: Whether a module is the user's own, so that its functions are looked into.
    """
    scanner = _Scanner(own)
    for root in roots:
        scanner.add(root, "")
    scanner.run()
    return Scan(tuple(scanner.imports), tuple(scanner.bindings), scanner.groups)


class _Scanner:
    def __init__(self, own: Callable[[str], bool]) -> None:
        self._own = own
        self._pending: list[tuple[object, str]] = []
        self._seen: dict[int, object] = {}  # holds what it has seen, so that no id comes twice
        self.imports: dict[Import, None] = {}
        self.bindings: list[Binding] = []
        self.groups: dict[str, str] = {}

    def add(self, value: object, where: str) -> None:
        if issubclass(type(value), _PLAIN) or id(value) in self._seen:
            return
        if len(self._seen) < _MOST_OBJECTS:
            self._seen[id(value)] = value
            self._pending.append((value, where))

    def run(self) -> None:
        while self._pending:
            self._visit(*self._pending.pop())

    def _visit(self, value: object, where: str) -> None:
        # `isinstance` would ask a proxy for the class of what it stands for.
        kind = type(value)
        if issubclass(kind, (list, tuple, set, frozenset)):
            self._add_first(value, where)  # type: ignore[arg-type]
        elif issubclass(kind, (staticmethod, classmethod)):
            self.add(value.__func__, where)  # type: ignore[attr-defined]
        elif kind is FunctionType:
            self._visit_function(value, where)  # type: ignore[arg-type]
        elif issubclass(kind, ModuleType):
            self._visit_module(value, where)  # type: ignore[arg-type]
        elif issubclass(kind, type):
            self._visit_class(value, where)  # type: ignore[arg-type]
        else:
            for part in _parts(value, kind):
                self.add(part, where)
            if kind not in _STRUCTURAL:
                self._visit_object(value, where)

    def _add_first(self, values: Iterable[object], where: str) -> None:
        # `list` of a slice is one step for other threads, which may be changing it.
        for value in list(islice(values, _MOST_ITEMS)):
            self.add(value, where)

    def _visit_module(self, module: ModuleType, where: str) -> None:
        made = getattr(module, "__spec__", None) is None and module.__name__ not in sys.modules
        if made or has_no_file(module.__name__):
            # It is pickled by value.
            self._add_first(vars(module).values(), where)
            return
        self._need(module.__name__, where)

    def _visit_function(self, function: FunctionType, where: str) -> None:
        here = _place(function)
        by_value = not importable(function)
        module = function.__module__ or ""
        if not by_value:
            self._need(module, where or here)
            if not self._own(module):
                return
        self._visit_code(function, here)
        for value in (
            function.__defaults__,
            function.__kwdefaults__,
            function.__annotations__,
            getattr(function, "__wrapped__", None),
        ):
            self.add(value, here)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents, here)
            except ValueError:
                continue  # not assigned yet: a recursive definition under way

    def _visit_code(self, function: FunctionType, here: str) -> None:
        scope = function.__globals__
        facts = read_code(function.__code__)
        package = scope.get("__package__")
        for site in facts.imports:
            found = absolute(site, package if isinstance(package, str) else "", here)
            if found is not None:
                self.imports[found] = None
        for text, line in facts.groups:
            self.groups.setdefault(text, at_line(here, line))
        for chain, line in facts.names:
            name = chain[0]
            if name not in scope:
                continue  # a builtin, or an error that the call itself will tell
            value = scope[name]
            self.bindings.append(Binding(scope, name, token_of(value)))
            if issubclass(type(value), ModuleType):
                value = _deepest_module(value, chain[1:])
            self.add(value, at_line(here, line))

    def _visit_class(self, cls: type, where: str) -> None:
        by_value = not importable(cls)
        module = str(cls.__module__)
        if not by_value:
            self._need(module, where or cls.__qualname__)
            if not self._own(module):
                return
        for base in cls.__bases__:
            self.add(base, where)
        for member in list(vars(cls).values()):
            if by_value or isinstance(member, _CODE):
                self.add(member, where)

    def _visit_object(self, value: object, where: str) -> None:
        """Follow an instance: its class, what it wraps, and its attributes."""
        module = _attribute(value, "__module__")
        if callable(value) and isinstance(module, str) and module != "builtins":
            self._need(module, where)
        self.add(type(value), where)
        attributes = _attribute(value, "__dict__")
        if isinstance(attributes, dict):
            self._add_first(attributes.values(), where)

    def _need(self, module: str, where: str) -> None:
        if module not in ("builtins", "__main__", "__mp_main__", ""):
            self.imports[Import(module, where)] = None


def absolute(site: ImportSite, package: str, where: str) -> Import | None:
    """Return an import with its absolute name and place, or ``None`` if it has none."""
    name = site.module
    if site.level:
        try:
            name = resolve_name("." * site.level + name, package)
        except ImportError:
            return None  # outside of any package: it fails here too
    return Import(name, at_line(where, site.line), site.members, site.optional)


def at_line(where: str, line: int) -> str:
    """Return a place with another line in the same file."""
    head, _, tail = where.rpartition(":")
    return f"{head}:{line})" if line and tail[:-1].isdigit() else where


def _deepest_module(module: ModuleType, attributes: tuple[str, ...]) -> ModuleType:
    for attribute in attributes:
        inner = sys.modules.get(f"{module.__name__}.{attribute}")
        if inner is None:
            break
        module = inner
    return module


def _place(function: FunctionType) -> str:
    code: CodeType = function.__code__
    return f"{function.__qualname__} ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"


def _parts(value: object, kind: type) -> tuple[object, ...]:
    """Return what a value of one of the structural types is made of."""
    if issubclass(kind, dict):
        return tuple(islice(value.items(), _MOST_ITEMS))  # type: ignore[attr-defined]
    if kind is MethodType:
        return (value.__func__, value.__self__)  # type: ignore[attr-defined]
    if kind is property:
        return (value.fget, value.fset, value.fdel)  # type: ignore[attr-defined]
    if issubclass(kind, (functools.partial, functools.partialmethod)):
        return (value.func, value.args, value.keywords)  # type: ignore[attr-defined]
    return ()


def _attribute(value: object, name: str) -> object:
    """Return an attribute without running code of the value's class (proxies have some)."""
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return None
