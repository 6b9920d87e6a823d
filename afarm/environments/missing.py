"""What a node's import hook asks for while a call runs, and remembering that it did.

What a function imports cannot always be known without running it: a name that is computed,
a plug-in that is looked up. A node that misses a module asks; what it got is taken along
with the function from the next analysis on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from types import CodeType

from ..payload.content import code_digest, unwrapped
from .bundle import Bundle, pack
from .files import SourceTree
from .installed import Distribution, installed
from .modules import is_standard, locate
from .places import cache_folder
from .resolve import resolve
from .scan import Import

_MOST_REMEMBERED = 200


def find_missing(
    name: str, known: Collection[str], *, cache: Path | None = None
) -> tuple[Bundle, ...]:
    """Return the bundles that let a node import a module. Blocks: disk, hashing.

    Args:
        name: The dotted name that an import asked for.
        known: The digests of the bundles that the environment has.
        cache: Where packed bundles are kept; default: `cache_folder`.

    Returns:
        What provides the module and what that requires, without what the environment
        has; empty if nothing more can be had: the import is to fail.

    Raises:
        DependencyError: If something cannot be packed.
    """
    if is_standard(name):
        return ()
    chain = locate(name)
    if not chain or chain[-1].name != name:
        return ()
    found = resolve([Import(name, "at run time", optional=True)], installed(sys.path))
    contents: list[Distribution | SourceTree] = [*found.distributions, *found.local]
    bundles = (pack(content, cache) for content in contents if content.files)
    return tuple(bundle for bundle in bundles if bundle.digest not in known)


def remember(fn: Callable[..., object], name: str, *, cache: Path | None = None) -> None:
    """Note that a function imported a module that analysis had not found. Blocks: disk."""
    path = _path(fn, cache)
    names = {*remembered(fn, cache=cache), name}
    if path is None or len(names) > _MOST_REMEMBERED:
        return
    with contextlib.suppress(OSError):  # it is asked for again
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            "w", prefix=".learned-", dir=path.parent, delete=False
        ) as entry:
            json.dump(sorted(names), entry)
        os.replace(entry.name, path)


def remembered(fn: Callable[..., object], *, cache: Path | None = None) -> tuple[str, ...]:
    """Return the modules that a function has asked for at run time."""
    path = _path(fn, cache)
    if path is None:
        return ()
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError):
        return ()
    return tuple(name for name in names if isinstance(name, str))


def _path(fn: Callable[..., object], cache: Path | None) -> Path | None:
    """Return the file of what a function asked for; ``None`` for what has no code of its own."""
    if not isinstance(getattr(unwrapped(fn), "__code__", None), CodeType):
        return None
    module = getattr(unwrapped(fn), "__module__", "")
    name = hashlib.sha256(f"{module} {code_digest(fn)}".encode("utf-8", "surrogateescape"))
    folder = (cache_folder() if cache is None else cache).parent / "learned"
    return folder / f"{name.hexdigest()}.json"
