"""Modules that are made ready ahead of the forks, for the workers of one call each.

Which ones these are is learned: the first workers tell what their calls have imported on top
of what the template had. The standard library's are imported before the next forks, and so is
cloudpickle. Of all others only the code is read: the user's own modules are run after the
fork, so that each call begins with them as they are after an import; finding and reading them
anew each time would cost a millisecond.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import islice
from types import CodeType, ModuleType

# Modules read ahead at most, in one go and in all; each takes a supervisor some 100 us.
MOST_AT_ONCE = 200
_MOST = 2000


# Of the standard library, what does more than define something when it is imported.
_NOT_AHEAD = frozenset({"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo"})


class _Loader(SourceFileLoader):
    """Loads a module from code that was read before."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType | None:
        return self._code


@dataclass(frozen=True, slots=True)
class _Module:
    """A module as it was when its code was read; ``stamp`` tells when its file is another one."""

    spec: ModuleSpec
    path: str
    stamp: tuple[int, int, int]


def _stamp(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


class Prepared:
    """Finds the modules that were read ahead; stands first in ``sys.meta_path``."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module] = {}
        self._places: dict[str, Sequence[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, names: Iterable[str]) -> None:
        """Make modules ready, packages before what lies in them."""
        for name in names:
            if name not in self and len(self._places) < _MOST:
                self._places[name] = ()
                # What goes wrong, whoever imports it will meet, and say.
                with contextlib.suppress(OSError, ImportError, SyntaxError, ValueError):
                    self._read(name)
        if self._modules and self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def _read(self, name: str) -> None:
        if name in sys.modules or _may_run_ahead(name):
            importlib.import_module(name)
            return
        parent = name.rpartition(".")[0]
        where = self._places.get(parent) or getattr(sys.modules.get(parent), "__path__", None)
        if parent and not where:
            return
        spec = PathFinder.find_spec(name, where)
        if spec is None:
            return
        self._places[name] = spec.submodule_search_locations or ()
        loader = spec.loader
        if type(loader) is SourceFileLoader:
            stamp = _stamp(loader.path)
            code = loader.get_code(name)
            if code is not None:
                spec.loader = _Loader(name, loader.path, code)
                self._modules[name] = _Module(spec, loader.path, stamp)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that was read ahead and has not changed since."""
        found = self._modules.get(name)
        if found is None:
            return None
        try:
            return found.spec if _stamp(found.path) == found.stamp else None
        except OSError:
            return None


prepared = Prepared()


def read_by_this_process(known: int) -> list[str]:
    """Return what was imported here and could have been made ready, packages first.

    Args:
        known: How many modules there were before.
    """
    # From the end: to look at all would bring their pages into a process that is about to end.
    new = list(islice(reversed(sys.modules), max(0, len(sys.modules) - known)))
    unread = [name for name in reversed(new) if name not in prepared]
    # The import system lists a package after the modules that it imports itself.
    unread.sort(key=lambda name: name.count("."))
    return [name for name in unread[:MOST_AT_ONCE] if _may_run_ahead(name) or _has_source(name)]


def _may_run_ahead(name: str) -> bool:
    """Return whether importing a module does nothing but define what is in it."""
    root = name.partition(".")[0]
    return root == "cloudpickle" or (root in sys.stdlib_module_names and root not in _NOT_AHEAD)


def _has_source(name: str) -> bool:
    return type(getattr(sys.modules.get(name), "__loader__", None)) is SourceFileLoader
