"""Importing from an environment whose modules are still on their way (`early`).

A module that is not there yet makes its importer wait, and nobody else; so does a listing of a
folder into which modules are still to come. Whatever else is opened, looked for or loaded is
there: imports begin when everything but modules is. Calls begin when all is.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import posix
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ModuleSpec,
    PathFinder,
)
from types import ModuleType
from typing import Any

# In an early environment: the files that are still to come, and, empty, that all have.
COMING = ".coming.json"
COMPLETE = ".complete"

# Milliseconds after which who waits looks again. The standard library cannot wait for a file, and
# a message through storekeeper, agent and template for each would cost them more.
_PAUSE = 1

_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)


class Arrival:
    """Waits for files; stands before `PathFinder` in ``sys.meta_path``.

    Args:
        folder: The early environment.
        descriptor: A socket; when its other end is closed, this process ends.
    """

    def __init__(self, folder: str, descriptor: int) -> None:
        with open(os.path.join(folder, COMING)) as file:
            self._coming: frozenset[str] = frozenset(json.load(file))
        self._complete = os.path.join(folder, COMPLETE)
        self._in_folder: dict[str, list[str]] = {}
        for path in self._coming:
            self._in_folder.setdefault(os.path.dirname(path), []).append(path)
        self._poll = select.poll()
        self._poll.register(descriptor, 0)

    def watch(self) -> None:
        """Let imports and listings wait from now on."""
        sys.meta_path.insert(sys.meta_path.index(PathFinder), self)
        setattr(os, "listdir", self._waiting(os.listdir))  # noqa: B010  # mypy wants its overloads
        setattr(os, "scandir", self._waiting(os.scandir))  # noqa: B010

    def end(self) -> None:
        """Wait until all is there, and for nothing any more."""
        self.wait_complete()
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            os.listdir, os.scandir = posix.listdir, posix.scandir
        # What was listed meanwhile lacks what came later.
        importlib.invalidate_caches()

    def wait_complete(self) -> None:
        """Wait until all is there."""
        self._wait(self._complete)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that was to come, once it has; ``None`` for all others."""
        entries = list(sys.path if path is None else path)
        for at, entry in enumerate(entries):
            base = f"{entry}/{name.rpartition('.')[2]}"
            for file in _candidates(base):
                if file in self._coming:
                    return self._spec(name, base, file, entries[:at])
        return None

    def _spec(self, name: str, base: str, file: str, before: list[str]) -> ModuleSpec | None:
        """Return what `PathFinder` would, if it is this file."""
        for other in _candidates(base):
            if other == file:
                break
            if os.path.isfile(other):
                return None
        first = PathFinder.find_spec(name, before) if before else None
        if first is not None and first.loader is not None:
            return None
        self._wait(file)
        bytecode = importlib.util.cache_from_source(file) if file.endswith(".py") else ""
        if bytecode in self._coming:
            self._wait(bytecode)
        package = [base] if os.path.dirname(file) == base else None
        return importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=package
        )

    def _wait(self, path: str) -> None:
        while not os.path.exists(path) and not os.path.exists(self._complete):
            if self._poll.poll(_PAUSE):
                os._exit(0)

    def _waiting(self, listing: Callable[..., Any]) -> Callable[..., Any]:
        """Return a listing of a folder that waits for what belongs into it."""

        def wait_and_list(path: Any = ".") -> Any:
            if path is not None and not isinstance(path, int):
                for each in self._in_folder.get(os.path.abspath(os.fsdecode(path)), ()):
                    self._wait(each)
            return listing(path)

        return wait_and_list


def _candidates(base: str) -> Iterator[str]:
    """Yield the files that may be a module, in the order in which they count."""
    for suffix in _SUFFIXES:
        yield f"{base}/__init__{suffix}"
    for suffix in _SUFFIXES:
        yield base + suffix
