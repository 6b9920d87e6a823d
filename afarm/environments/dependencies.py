"""What a function needs on a node: the public face of the analysis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import DependencyError
from ..payload.needs import ByValue, Need
from ..resources import format_bytes
from .files import LARGEST_SOURCE, SourceTree
from .installed import Distribution, Installed, installed, not_as_installed
from .memory import Memory
from .missing import remembered
from .modules import built_for_another
from .origin import pinned
from .resolve import Owners, SitePackages, is_own, preloads, resolve
from .scan import Binding, Import, scan

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Bytes above which the user is told how much travels: half of it is what PyTorch brings for
# CPUs alone, four times as much what it brings for GPUs.
LARGE = 1 << 30


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a function needs.

    Attributes:
        modules: Imported names, each with where it was seen; without the standard library.
        distributions: The exact installed closure, sorted by name.
        local: The user's own modules and packages, editable installs included.
        missing: Imports that nothing here provides.
        preload: Modules of distributions that are imported in any case.
        reasons: Why each distribution and each own module or package is needed, by its name.
    """

    modules: tuple[Import, ...]
    distributions: tuple[Distribution, ...]
    local: tuple[SourceTree, ...]
    missing: tuple[Import, ...]
    preload: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def requirements(self) -> list[str]:
        """Return pinned requirement lines, as in ``requirements.txt``.

        What came from a repository, an archive or a folder is pinned to that.
        """
        return [pinned(found.name, found.version, found.origin) for found in self.distributions]

    @property
    def contents(self) -> tuple[Distribution | SourceTree, ...]:
        """All that travels."""
        return (*self.distributions, *self.local)

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(found.bytes for found in self.contents)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know: what does not travel, what is not as it was, what is large."""
        notes = [
            f"{reason}: if calls need it, pass it to them with options(files=)"
            for tree in self.local
            for reason in tree.left_out
        ]
        notes += [
            f"{file.path} ({format_bytes(file.size)}) travels with the code: it is machine code"
            for tree in self.local
            for file in tree.files
            if file.size > LARGEST_SOURCE
        ]
        notes += [
            not_as_installed(f"{found.name} {found.version}", found.changed)
            for found in self.distributions
            if found.changed
        ]
        if self.bytes > LARGE:
            largest = max(self.contents, key=lambda found: found.bytes)
            notes.append(
                f"{format_bytes(self.bytes)} travel to each node, of which "
                f"{format_bytes(largest.bytes)} are {largest.name}"
            )
        return tuple(notes)

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
        foreign = [(name, file) for name in names for file in built_for_another(name)]
        if foreign:
            files = "; ".join(f"{name!r} is built for another Python in {f}" for name, f in foreign)
            remedy = f"{files}: build it for {EXTENSION_SUFFIXES[0]} with this interpreter"
        else:
            remedy = (
                "Install it, or put its folder on sys.path; if the function can do without it, "
                "import it under try/except ImportError"
            )
        raise DependencyError(f"no module here provides {seen}. {remedy}", names=names)


_analyses: Memory[Dependencies] = Memory()
_aheads: Memory[Ahead] = Memory()


def analyze(
    fn: Callable[..., object],
    *,
    packages: Sequence[str] = (),
    modules: Sequence[str | ModuleType] = (),
    carried: frozenset[Need] = frozenset(),
) -> Dependencies:
    """Return what a function needs: distributions, own modules, and what is missing.

    Nothing is imported or called. The answer is remembered until the function, or a
    global that it looks up, is another one; so a module that was edited is noticed with
    the next new function, not with the next call.

    Args:
        fn: A function, or anything that is called like one.
        packages: Distributions to take along, as requirements: ``"pandas[parquet]"``.
        modules: Modules to take along.
        carried: What its arguments need, as pickling them has found.

    Raises:
        DependencyError: If one of ``packages`` is not installed.
        TypeError: If ``fn`` cannot be called.
    """
    if not callable(fn):
        raise TypeError(f"a function is needed, not {fn!r}")
    names = tuple(sorted(m.__name__ if isinstance(m, ModuleType) else m for m in modules))
    asked = tuple(sorted(packages))
    learned = remembered(fn)
    added = [Import(name, "modules=") for name in names]
    added += [Import(name, "an earlier call, at run time", optional=True) for name in learned]
    if any(isinstance(need, ByValue) for need in carried):
        # Remembering it would keep what it holds, which may be the function itself.
        return _analyze(fn, asked, added, carried)[0]
    return _analyses.get(
        fn, (asked, names, learned, carried), lambda: _analyze(fn, asked, added, carried)
    )


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is known of a function without looking at what is installed.

    Attributes:
        preload: As `Dependencies.preload`, of the function without its arguments.
        imports: What it and its arguments import.
        groups: Texts any of which may name a group of entry points, each with its place.
    """

    preload: tuple[str, ...]
    imports: tuple[Import, ...]
    groups: Mapping[str, str]


def look_ahead(fn: Callable[..., object], carried: frozenset[Need] = frozenset()) -> Ahead:
    """Return what is known of a function without looking at what is installed.

    For nodes that use this side's own packages: it takes 1 ms where `analyze` takes 50 ms.

    Args:
        fn: A function, or anything that is called like one.
        carried: As of `analyze`.
    """
    ahead = _aheads.get(fn, (), lambda: _look_ahead(fn))
    if not carried:
        return ahead
    more = scan(_values(carried), own=_ownership(SitePackages()))
    imports = _with_arguments((*ahead.imports, *more.imports), carried)
    return Ahead(ahead.preload, tuple(imports), {**ahead.groups, **more.groups})


def provide(
    imports: Iterable[Import], groups: Mapping[str, str], *, packages: Sequence[str] = ()
) -> Dependencies:
    """Return what several functions need, from what `look_ahead` has told of each.

    Raises:
        DependencyError: If one of ``packages`` is not installed.
    """
    known = installed(sys.path)
    found = resolve(imports, known, packages=_requirements(packages, known), groups=groups)
    return Dependencies(
        found.modules,
        found.distributions,
        found.local,
        found.missing,
        found.preload,
        found.reasons,
    )


def _look_ahead(fn: Callable[..., object]) -> tuple[Ahead, tuple[Binding, ...]]:
    scanned = scan([fn], own=_ownership(SitePackages()))
    return Ahead(preloads(scanned.imports), scanned.imports, scanned.groups), scanned.bindings


def _analyze(
    fn: Callable[..., object],
    packages: tuple[str, ...],
    added: Sequence[Import],
    carried: frozenset[Need],
) -> tuple[Dependencies, tuple[Binding, ...]]:
    scanned = scan([fn, *_values(carried)], own=_ownership(installed(sys.path)))
    imports = [*_with_arguments(scanned.imports, carried), *added]
    return provide(imports, scanned.groups, packages=packages), scanned.bindings


def _values(carried: frozenset[Need]) -> list[object]:
    return [need.value for need in carried if isinstance(need, ByValue)]


def _with_arguments(imports: Sequence[Import], carried: frozenset[Need]) -> Iterator[Import]:
    """Yield imports, and those of the modules that arguments need.

    Of what the function imports anyway, no other module is imported ahead: the same
    environment serves it with and without such arguments.
    """
    yield from imports
    seen = {needed.module.partition(".")[0] for needed in imports if not needed.optional}
    for name in sorted(need for need in carried if isinstance(need, str)):
        yield Import(name, "an argument", optional=name.partition(".")[0] in seen)


def _ownership(known: Owners) -> Callable[[str], bool]:
    """Return `is_own`, each module being looked for once."""
    answers: dict[str, bool] = {}

    def own(module: str) -> bool:
        answer = answers.get(module)
        if answer is None:
            answer = answers[module] = is_own(module, known)
        return answer

    return own


def _requirements(packages: Sequence[str], known: Installed) -> list[Requirement]:
    if not packages:
        return []
    from packaging.requirements import InvalidRequirement, Requirement

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
