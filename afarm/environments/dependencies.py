"""What a function needs on a node: the public face of the analysis."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TypeAlias
from weakref import WeakKeyDictionary

from packaging.requirements import InvalidRequirement, Requirement

from ..errors import DependencyError
from .files import SourceTree
from .installed import Distribution, Installed, installed
from .resolve import Resolution, is_own, resolve
from .scan import Binding, Import, scan, token_of

_MOST_REMEMBERED = 512

_Extra: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a function needs.

    Attributes:
        modules: Imported names, each with where it was seen; without the standard library.
        distributions: The exact installed closure, sorted by name.
        local: The user's own modules and packages, editable installs included.
        missing: Imports that nothing here provides.
        preload: Modules of distributions that are imported in any case.
    """

    modules: tuple[Import, ...]
    distributions: tuple[Distribution, ...]
    local: tuple[SourceTree, ...]
    missing: tuple[Import, ...]
    preload: tuple[str, ...]

    def requirements(self) -> list[str]:
        """Return pinned requirement lines, as in ``requirements.txt``."""
        return [f"{found.name}=={found.version}" for found in self.distributions]

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know: files that do not travel."""
        return tuple(
            f"{file} is too large to travel with {tree.name}; pass it to the call as a file"
            for tree in self.local
            for file in tree.left_out
        )

    def check(self) -> None:
        """Raise if the function needs a module that is not here.

        Raises:
            DependencyError: It names each, where it was seen, and what to do.
        """
        needed = [found for found in self.missing if not found.optional]
        if not needed:
            return
        names = list(dict.fromkeys(found.module for found in needed))
        seen = "; ".join(f"{found.module!r}, seen in {found.where}" for found in needed)
        raise DependencyError(
            f"no module here provides {seen}. Install it, or put its folder on sys.path; if "
            "its distribution or module has another name, pass packages=[...] or modules=[...] "
            "to options(); if the function can do without it, import it under try/except "
            "ImportError",
            names=names,
        )


@dataclass(frozen=True, slots=True)
class _Remembered:
    dependencies: Dependencies
    bindings: tuple[Binding, ...]
    cells: tuple[object, ...]
    path: tuple[str, ...]

    def holds(self, cells: tuple[object, ...], path: tuple[str, ...]) -> bool:
        return (
            self.cells == cells
            and self.path == path
            and all(binding.holds() for binding in self.bindings)
        )


_lock = threading.Lock()
_by_function: WeakKeyDictionary[FunctionType, dict[_Extra, _Remembered]] = WeakKeyDictionary()
_by_code: OrderedDict[tuple[CodeType, _Extra], _Remembered] = OrderedDict()


def analyze(
    fn: Callable[..., object],
    *,
    packages: Sequence[str] = (),
    modules: Sequence[str | ModuleType] = (),
) -> Dependencies:
    """Return what a function needs: distributions, own modules, and what is missing.

    Nothing is imported or called. The answer is remembered until the function, or a
    global that it looks up, is another one; so a module that was edited is noticed with
    the next new function, not with the next call.

    Args:
        fn: A function, or anything that is called like one.
        packages: Distributions to take along, as requirements: ``"pandas[parquet]"``.
        modules: Modules to take along.

    Raises:
        DependencyError: If one of ``packages`` is not installed.
        TypeError: If ``fn`` cannot be called.
    """
    if not callable(fn):
        raise TypeError(f"a function is needed, not {fn!r}")
    names = tuple(sorted(m.__name__ if isinstance(m, ModuleType) else m for m in modules))
    extra = (tuple(sorted(packages)), names)
    if not isinstance(fn, FunctionType):
        return _analyze(fn, extra)[0]
    path = tuple(sys.path)
    cells = _cells(fn)
    portable = not any(isinstance(token, int) for token in cells)
    with _lock:
        for known in (
            _by_function.get(fn, {}).get(extra),
            _by_code.get((fn.__code__, extra)) if portable else None,
        ):
            if known is not None and known.holds(cells, path):
                return known.dependencies
    dependencies, bindings = _analyze(fn, extra)
    remembered = _Remembered(dependencies, bindings, cells, path)
    with _lock:
        _by_function.setdefault(fn, {})[extra] = remembered
        if portable:
            _by_code[fn.__code__, extra] = remembered
            while len(_by_code) > _MOST_REMEMBERED:
                _by_code.popitem(last=False)
    return dependencies


def _cells(fn: FunctionType) -> tuple[object, ...]:
    """Return tokens of what a function carries with it beside its code and globals."""
    tokens: list[object] = [fn.__globals__.get("__name__")]
    for cell in fn.__closure__ or ():
        try:
            tokens.append(token_of(cell.cell_contents))
        except ValueError:
            tokens.append(None)  # not assigned yet
    for default in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
        tokens.append(token_of(default))
    return tuple(tokens)


def _analyze(fn: Callable[..., object], extra: _Extra) -> tuple[Dependencies, tuple[Binding, ...]]:
    known = installed(sys.path)
    packages, modules = extra
    owns: dict[str, bool] = {}

    def own(module: str) -> bool:
        answer = owns.get(module)
        if answer is None:
            answer = owns[module] = is_own(module, known)
        return answer

    scanned = scan([fn], own=own)
    asked = (Import(module, "modules=") for module in modules)
    found: Resolution = resolve(
        [*scanned.imports, *asked], known, packages=_requirements(packages, known)
    )
    dependencies = Dependencies(
        found.modules, found.distributions, found.local, found.missing, found.preload
    )
    return dependencies, scanned.bindings


def _requirements(packages: Sequence[str], known: Installed) -> list[Requirement]:
    requirements = []
    for package in packages:
        try:
            requirement = Requirement(package)
        except InvalidRequirement as exc:
            raise DependencyError(
                f"packages={package!r} is not a requirement such as 'pandas[parquet]': {exc}",
                names=[package],
            ) from exc
        if requirement.name not in known:
            raise DependencyError(
                f"packages={package!r}: no such distribution is installed here; "
                f"pip install {requirement.name}",
                names=[requirement.name],
            )
        requirements.append(requirement)
    return requirements
