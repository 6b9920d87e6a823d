"""Imported names to what provides them: distributions, and the user's own modules.

A module is the user's own when no distribution lists its file and it is not part of
the standard library: beside the main script, on PYTHONPATH, an editable install. What
such a module imports is needed as well, and is read from its source.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Protocol

from .bytecode import read_code
from .files import SourceTree, source_tree
from .installed import Distribution, Installed, canonical
from .modules import Located, is_in_standard_library, is_standard, locate
from .scan import Import, absolute, at_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# The agent's modules are in place under this name before any import of the user's.
_STREAMED = "afarm"


class Owners(Protocol):
    """Tells whose a file is."""

    def owner(self, file: str) -> str | None:
        """Return the name of what installed a file."""
        ...

    def editable_owner(self, file: str, top: str) -> str | None:
        """Return the name of the editable distribution that a top-level module belongs to."""
        ...


class SitePackages:
    """Tells what was installed by where it lies: enough to know what to import ahead."""

    def owner(self, file: str) -> str | None:
        return (
            "?" if not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep)) else None
        )

    def editable_owner(self, file: str, top: str) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the imports of a function come to.

    Attributes:
        modules: Every import that was seen, the standard library's left out.
        distributions: What is installed and needed, with all it requires.
        local: The user's own modules and packages.
        missing: Imports that nothing here provides.
        preload: Modules of distributions that are imported in any case, to be imported
            ahead of the calls.
        reasons: Why each distribution and each tree is needed, by its name, for people.
    """

    modules: tuple[Import, ...]
    distributions: tuple[Distribution, ...]
    local: tuple[SourceTree, ...]
    missing: tuple[Import, ...]
    preload: tuple[str, ...]
    reasons: Mapping[str, str]


def is_own(module: str, known: Owners) -> bool:
    """Return whether a module is the user's own."""
    if is_standard(module):
        return False
    chain = locate(module)
    return bool(chain) and _is_own_file(chain[-1].file, known)


def resolve(
    imports: Iterable[Import],
    known: Installed,
    *,
    packages: Sequence[Requirement] = (),
    groups: Mapping[str, str] | None = None,
) -> Resolution:
    """Return what provides the imports.

    Args:
        imports: What was seen, and what the user added.
        known: The installed distributions.
        packages: Distributions to take along though nothing seen imports them; each
            must be installed.
        groups: Groups of entry points that are looked up, each with its place.
    """
    from packaging.requirements import Requirement

    resolver = _Resolver(known)
    resolver.groups.update(groups or {})
    named = {canonical(package.name) for package in packages}
    added = tuple(imports)
    while True:
        resolver.run(added)
        tops = {needed.module.partition(".")[0] for needed in resolver.modules}
        added = tuple(_plug_ins(known, {*named, *resolver.owners, *tops}, resolver))
        if not added:
            break
    roots = [*packages, *(Requirement(name) for name in sorted(resolver.owners))]
    closure = known.closure(roots)
    names = {needed.module for needed in resolver.modules}
    found = {name: known.describe(name, names) for name in closure}
    return Resolution(
        modules=tuple(resolver.modules),
        distributions=tuple(found.values()),
        local=tuple(
            source_tree(root, name) for name, root in sorted(resolver.trees) if os.path.exists(root)
        ),
        missing=tuple(resolver.missing),
        preload=tuple(sorted(resolver.preload)),
        reasons=_reasons(resolver, closure, found),
    )


def _reasons(
    resolver: _Resolver, closure: Mapping[str, str], found: Mapping[str, Distribution]
) -> dict[str, str]:
    """Return why each tree and each distribution is needed, by its name."""
    reasons = {name: _seen(needed) for (name, _), needed in resolver.trees.items()}
    for name, parent in closure.items():
        if name in resolver.owners:
            reason = _seen(resolver.owners[name])
        else:
            reason = f"{found[parent].name} requires it" if parent else "packages="
        reasons[found[name].name] = reason
    return reasons


def _seen(needed: Import) -> str:
    return f"{needed.module}, seen in {needed.where}"


def _plug_ins(known: Installed, hosts: Collection[str], resolver: _Resolver) -> Iterator[Import]:
    """Yield what is announced to what is imported, and is not needed yet.

    A group belongs to the distribution or module that its name begins with
    (``xarray.backends``), and to whoever looks it up by its name. Plug-ins of what is only
    required by something else do not count: there is no end to them.
    """
    for point in known.entry_points():
        where = resolver.groups.get(point.group)
        host, dot, _ = point.group.partition(".")
        if where is None and not (dot and host in hosts):
            continue
        place = f"the entry points {point.group}" + (f", looked up in {where}" if where else "")
        needed = Import(point.module, place, optional=True)
        if point.distribution not in resolver.owners and needed not in resolver.modules:
            # Its metadata are needed even where it is a project of the user's own.
            resolver.owners[point.distribution] = needed
            yield needed


def preloads(imports: Iterable[Import]) -> tuple[str, ...]:
    """Return `Resolution.preload` alone, without looking at what is installed."""
    resolver = _Resolver(SitePackages())
    resolver.run(imports)
    return tuple(sorted(resolver.preload))


def _is_own_file(file: str, known: Owners) -> bool:
    return bool(file) and known.owner(file) is None and not is_in_standard_library(file)


class _Resolver:
    def __init__(self, known: Owners) -> None:
        self._known = known
        self._pending: list[Import] = []
        self._read: set[str] = set()
        self._located: dict[str, tuple[Located, ...]] = {}
        self.modules: dict[Import, None] = {}
        self.missing: dict[Import, None] = {}
        self.owners: dict[str, Import] = {}
        self.trees: dict[tuple[str, str], Import] = {}
        self.groups: dict[str, str] = {}
        self.preload: set[str] = set()

    def add(self, needed: Import) -> None:
        if needed not in self.modules and not is_standard(needed.module):
            self.modules[needed] = None
            self._pending.append(needed)

    def run(self, imports: Iterable[Import]) -> None:
        for needed in imports:
            self.add(needed)
        while self._pending:
            self._resolve(self._pending.pop())

    def _locate(self, name: str) -> tuple[Located, ...]:
        chain = self._located.get(name)
        if chain is None:
            chain = self._located[name] = locate(name)
        return chain

    def _resolve(self, needed: Import) -> None:
        chain = self._locate(needed.module)
        if not chain:
            if needed.module not in sys.modules:
                self.missing[needed] = None
            return
        innermost = chain[-1]
        whole = innermost.name == needed.module
        if not whole and needed.module not in sys.modules and self._own(innermost):
            self.missing[needed] = None
        if whole and innermost.folders:
            inner = self._submodules(innermost, needed.members)
            if innermost.file and not self._own(innermost):
                # What the package was installed with travels anyway: there may be more in it.
                owner = self._known.owner(innermost.file)
                inner = tuple(each for each in inner if self._known.owner(each.file) != owner)
            chain += inner
        for located in chain:
            self._take(located, chain[0], needed)

    def _submodules(self, package: Located, members: Sequence[str]) -> tuple[Located, ...]:
        """Return those names imported from a package that are modules in it."""
        found = (self._locate(f"{package.name}.{member}") for member in members if member != "*")
        return tuple(chain[-1] for chain in found if chain and chain[-1].name != package.name)

    def _own(self, located: Located) -> bool:
        return _is_own_file(located.file, self._known)

    def _take(self, located: Located, top: Located, needed: Import) -> None:
        if not located.file or is_in_standard_library(located.file):
            return
        owner = self._known.owner(located.file)
        if owner is not None:
            self.owners.setdefault(owner, needed)
            if not needed.optional and top.name != _STREAMED:
                self.preload.discard(located.name.rpartition(".")[0])
                self.preload.add(located.name)
            return
        self.trees.setdefault(_tree_of(located, top), needed)
        project = self._known.editable_owner(located.file, top.name)
        if project is not None:
            self.owners.setdefault(project, needed)
        if located.file not in self._read:
            self._read.add(located.file)
            self._read_source(located)

    def _read_source(self, located: Located) -> None:
        code = _compiled(located.file, _mtime_ns(located.file))
        if code is None:
            return
        package = located.name if located.folders else located.name.rpartition(".")[0]
        place = f"{located.name} ({os.path.basename(located.file)}:1)"
        loaded = located.name in sys.modules
        facts = read_code(code)
        for text, line in facts.groups:
            self.groups.setdefault(text, at_line(place, line))
        for site in facts.imports:
            found = absolute(site, package, place)
            if found is None:
                continue
            # What a module did without when it was loaded here, it can do without there.
            optional = found.optional or site.lazy or loaded
            self.add(Import(found.module, found.where, found.members, optional))
            if found.optional or site.lazy:
                continue
            self._preload_of(found)

    def _preload_of(self, found: Import) -> None:
        """Take note of what one of the user's modules imports in any case."""
        chain = () if is_standard(found.module) else self._locate(found.module)
        if chain and chain[0].name != _STREAMED and self._known.owner(chain[-1].file):
            self.preload.add(chain[-1].name)


def _tree_of(located: Located, top: Located) -> tuple[str, str]:
    """Return the name on the node and the root here of the tree that a module belongs to."""
    if top.file and top.folders:
        return top.name, os.path.dirname(top.file)
    if top.file:
        _, suffix = os.path.splitext(top.file)
        return (f"{top.name}.py" if suffix == ".py" else os.path.basename(top.file)), top.file
    for folder in top.folders:  # a namespace: the one of its folders that the module is in
        if located.file.startswith(folder + os.sep):
            return top.name, folder
    return top.name, os.path.dirname(located.file)


def _mtime_ns(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=512)
def _compiled(file: str, mtime_ns: int) -> CodeType | None:
    """Return the code of a source file; ``None`` for machine code and for what does not parse."""
    if not file.endswith(".py") or not mtime_ns:
        return None
    with open(file, "rb") as stream:
        source = stream.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None  # importing it fails here too, and says so better
