"""An environment in which importing begins while its modules are still on their way.

The storekeeper makes it in the folder of its agent's session, where no other farm looks, as soon
as everything but modules is there, and links each module into it once that is verified. Who
imports from it waits for what is still to come: see `arrival`. When all is there it is an
environment like others, for as long as the session lasts. One for all sessions is made of
the same bundles when nobody waits any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .arrival import COMING, COMPLETE
from .build import begin_environment, make_read_only, name_interpreter
from .parts import runs_at_start


@dataclass(frozen=True, slots=True)
class Part:
    """A bundle of an environment.

    Attributes:
        listed: The names of its files.
        there: Of those that are there, where each lies.
    """

    listed: Collection[str]
    there: Mapping[str, str]


def can_begin_early(parts: Mapping[str, Part]) -> bool:
    """Whether importing may begin before all of an environment is there.

    Not where an interpreter runs code of it before anything can wait, nor where two bundles have
    a file of the same name: which one counts does not depend on which comes first.
    """
    seen: set[str] = set()
    for part in parts.values():
        for name in part.listed:
            if runs_at_start(name):
                return False
            if name.endswith(".pyc") or name.startswith("source/"):
                continue
            if name in seen:
                return False
            seen.add(name)
    return True


class EarlyEnvironment:
    """A virtual environment that is filled file by file.

    Args:
        folder: Where it is made; nothing is there.
        parts: Its bundles, by digest. What of them is to come, is no secret from now on.

    Raises:
        OSError: If it cannot be written, or hard links are not to be had.
    """

    def __init__(self, folder: str, parts: Mapping[str, Part]) -> None:
        self.folder = folder
        os.makedirs(folder, mode=0o700)
        self._there: dict[str, set[str]] = {digest: set() for digest in parts}
        self._trees = {
            digest: os.path.join(folder, "sources", digest)
            for digest, part in parts.items()
            if any(name.startswith("source/") for name in part.listed)
        }
        self._packages = begin_environment(folder, list(self._trees.values()))
        self._folders = {folder, self._packages}
        coming = []
        for digest, part in parts.items():
            # All folders, so that packages without an `__init__` are what they will be.
            for name in part.listed:
                self._make_folder(os.path.dirname(self._place(digest, name)))
            self.link(digest, part.there.items())
            coming += [self._place(digest, name) for name in part.listed if name not in part.there]
        with open(os.path.join(folder, COMING), "w") as file:
            json.dump(coming, file)

    def link(self, digest: str, files: Iterable[tuple[str, str]]) -> None:
        """Make files visible.

        Args:
            digest: Of their bundle.
            files: The name of each, and where it lies.

        Raises:
            OSError: If a link cannot be made.
        """
        for name, path in files:
            self._there[digest].add(name)
            try:
                os.link(path, self._place(digest, name))
            except FileExistsError:
                continue

    def complete(self, stored: Mapping[str, Mapping[str, str]]) -> None:
        """Say that all is there.

        Args:
            stored: Where each file of the bundles lies, by their digests: those that were
                compiled here are among them, and of a bundle for which another farm was faster,
                those that were still to come.

        Raises:
            OSError: If it cannot be written.
        """
        for digest, files in stored.items():
            others = [item for item in files.items() if item[0] not in self._there[digest]]
            for name, _ in others:
                self._make_folder(os.path.dirname(self._place(digest, name)))
            self.link(digest, others)
        name_interpreter(self.folder, self.folder)
        with open(os.path.join(self.folder, COMPLETE), "x"):
            pass

    def protect(self) -> None:
        """Let nothing be added to it.

        Raises:
            OSError: If that cannot be done.
        """
        make_read_only(self.folder)

    def _place(self, digest: str, name: str) -> str:
        kind, _, rest = name.partition("/")
        if kind == "site-packages":
            return os.path.join(self._packages, rest)
        return os.path.join(self._trees[digest] if kind == "source" else self.folder, rest)

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            self._folders.add(folder)
            os.makedirs(folder, mode=0o700, exist_ok=True)
