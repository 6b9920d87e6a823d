"""The interpreter and distributions that a function needs, as one value with a digest."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._agent.build import platform_of_interpreter
from .bundle import Bundle, is_packed, pack
from .dependencies import Dependencies
from .files import SourceTree
from .first_use import first_use
from .installed import Distribution
from .places import cache_folder

log = logging.getLogger("afarm")


@dataclass(frozen=True, slots=True)
class Environment:
    """What a template runs with. Hashable: equal environments are the same environment.

    Attributes:
        digest: Names its content; where it is shipped, also its folder on a node.
        preload: Modules for the template to import ahead of the calls.
        bundles: What a node must have, in the order in which imports reach them; empty
            where it is in place.
        is_in_place: It is this interpreter with its search path, for nodes of this machine.
        path: Where it is in place, the search path.
    """

    digest: str
    preload: tuple[str, ...]
    bundles: tuple[Bundle, ...] = ()
    is_in_place: bool = False
    path: tuple[str, ...] = ()

    @classmethod
    def in_place(cls, preload: tuple[str, ...] = ()) -> Environment:
        """Return this process's own interpreter and search path."""
        path = tuple(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
        text = "\0".join([sys.executable, *path])
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return cls(digest, preload, is_in_place=True, path=path)

    @classmethod
    def shipped(
        cls, dependencies: Dependencies, *, cache: Path | None = None, check: bool = True
    ) -> Environment:
        """Return the environment of a function's dependencies, packed. Blocks: disk, hashing.

        Args:
            dependencies: What `analyze` found.
            cache: Where packed bundles are kept; default: `cache_folder`.
            check: Whether something that is missing is an error.

        Raises:
            DependencyError: If something is missing that the function cannot do without,
                or cannot be packed.
        """
        if check:
            dependencies.check()
        cache = cache_folder() if cache is None else cache
        with _lock:
            known = _latest.get((id(dependencies), cache))
        if known is None or not all(bundle.path.exists() for bundle in known[1].bundles):
            for note in dependencies.notes:
                log.warning("%s", note)
            known = dependencies, cls._packed(dependencies, cache)
            with _lock:
                _latest[id(dependencies), cache] = known
                while len(_latest) > _MOST:
                    _latest.popitem(last=False)
        return known[1]

    @classmethod
    def _packed(cls, dependencies: Dependencies, cache: Path) -> Environment:
        contents = list(dependencies.contents)
        versions = [f"{found.name} {found.version}" for found in dependencies.distributions]
        # What is packed keeps the order it has, and importing takes seconds.
        learn = not all(is_packed(content, cache) for content in contents if content.files)
        first = first_use(dependencies.preload, versions, cache, learn=learn)
        contents.sort(key=_first_rank(first))
        bundles = tuple(pack(content, cache, first=first) for content in contents if content.files)
        return cls._of(bundles, dependencies.preload)

    @classmethod
    def _of(cls, bundles: tuple[Bundle, ...], preload: tuple[str, ...]) -> Environment:
        digests = sorted(bundle.digest for bundle in bundles)
        text = "\n".join([platform_of_interpreter()["abi"], *digests])
        return cls(hashlib.sha256(text.encode()).hexdigest(), preload, bundles)

    def grown(self, bundles: Sequence[Bundle]) -> Environment:
        """Return what is shipped if these travel as well."""
        return self._of((*self.bundles, *bundles), self.preload)

    def describe(self, blob_ids: Mapping[str, int]) -> str:
        """Return the description for a node, as JSON.

        Args:
            blob_ids: The number of each bundle's blob on the connection, by digest.
        """
        if self.is_in_place:
            return json.dumps(
                {
                    "in_place": True,
                    "executable": sys.executable,
                    "path": self.path,
                    "preload": self.preload,
                }
            )
        bundles = [
            {
                "blob": blob_ids[bundle.digest],
                "digest": bundle.digest,
                "head": bundle.head,
                "kind": bundle.kind,
                "name": bundle.name,
                "native": bundle.native,
                "size": bundle.size,
            }
            for bundle in self.bundles
        ]
        description: dict[str, object] = {
            "in_place": False,
            "bundles": bundles,
            "digest": self.digest,
            "preload": self.preload,
        }
        if any(bundle.native for bundle in self.bundles):
            description["platform"] = platform_of_interpreter()
        return json.dumps(description)


# Analysis answers with the same object for a function made anew from the same code, as a loop
# makes them: for scikit-learn's closure it takes 8 ms to see that all is packed.
_MOST = 64
_latest: OrderedDict[tuple[int, Path], tuple[Dependencies, Environment]] = OrderedDict()
_lock = threading.Lock()


def _first_rank(first: Sequence[str]) -> Callable[[Distribution | SourceTree], int]:
    """Return a key that sorts by which content is read first, and leaves the rest as it is."""
    rank = {path: at for at, path in enumerate(first)}

    def first_read(content: Distribution | SourceTree) -> int:
        return min((rank.get(file.path, len(rank)) for file in content.files), default=len(rank))

    return first_read
