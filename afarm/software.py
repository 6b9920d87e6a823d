"""What software each function needs, found once and in a thread."""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import DependencyError
from .payload.needs import Need

if TYPE_CHECKING:
    from .environments import Ahead, Bundle, Environment, Import


_NOWHERE = "nothing here provides it: install it, or put its folder on sys.path"


@dataclass(frozen=True, slots=True)
class Added:
    """What is to be taken along with a function though it does not refer to it.

    Attributes:
        packages: Distributions that the user named, as requirements: ``"pandas[parquet]"``; sorted.
        modules: Modules that the user named; sorted.
        carried: What its arguments need.
    """

    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    carried: frozenset[Need] = frozenset()

    def also(self, other: Added) -> Added:
        """Return both together."""
        return Added(
            tuple(sorted({*self.packages, *other.packages})),
            tuple(sorted({*self.modules, *other.modules})),
            self.carried | other.carried,
        )


NOTHING_ADDED = Added()


@dataclass(slots=True, eq=False)
class Software:
    """The environment of some functions, as each kind of node needs it.

    Attributes:
        id: Its number in the farm, by which the core and the nodes know it.
        in_place: For nodes that use this side's own interpreter and packages.
        shipped: For all others; made when the first such node needs it.
        imports: Until then, what the functions import that have it.
        groups: Until then, the groups of entry points that they look up.
        packages: Until then, what the user named.
        missed: Modules that calls missed where it was shipped, each with why it cannot be had;
            or ``""``: what provides it is in ``shipped`` now.
        grown: The number of ``shipped`` for nodes that know an earlier one as ``id``; 0: it
            is as it was.
        first: As ``shipped`` was before anything was missed.
    """

    id: int
    in_place: Environment
    shipped: Environment | None = None
    imports: dict[tuple[str, tuple[str, ...], bool], Import] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    missed: dict[str, str] = field(default_factory=dict)
    grown: int = 0
    first: Environment | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, ahead: Ahead, added: Added) -> None:
        """Note what another function imports that is the same where nothing is shipped."""
        from .environments import Import

        named = (Import(name, "modules=") for name in added.modules)
        for needed in (*ahead.imports, *named):
            self.imports.setdefault((needed.module, needed.members, needed.optional), needed)
        self.groups.update(ahead.groups)
        self.packages.update(added.packages)


@dataclass(frozen=True, slots=True)
class Supply:
    """What serves a module that a call has missed.

    Attributes:
        id: The number of the environment that has it.
        environment: That environment.
        brought: What was added for it, unless that was done before.
    """

    id: int
    environment: Environment
    brought: tuple[Bundle, ...]


class SoftwareLibrary:
    """Remembers what was found out about each function.

    Args:
        numbers: Where numbers for environments come from.
    """

    def __init__(self, numbers: itertools.count[int]) -> None:
        self._numbers = numbers
        self._by_function: dict[tuple[int, Added], tuple[weakref.ref[Any], Software]] = {}
        self._by_content: dict[tuple[Environment, Environment | None], Software] = {}
        self._under_way: dict[tuple[int, Added, bool], asyncio.Task[Software]] = {}

    def known(self, function: Callable[..., Any], added: Added = NOTHING_ADDED) -> Software | None:
        """Return what a function needs, if that has been found out."""
        entry = self._by_function.get((id(function), added))
        return entry[1] if entry is not None and entry[0]() is function else None

    @staticmethod
    def warm_up() -> None:
        """Import what analyses software; in a thread, while the first node is opened."""
        importlib.import_module("afarm.environments")

    async def find(
        self, function: Callable[..., Any], *, ship: bool, added: Added = NOTHING_ADDED
    ) -> Software:
        """Find out what a function needs; in a thread, once for all who ask meanwhile.

        Args:
            function: What is to run.
            ship: Whether some node needs the software shipped.
            added: What the user wants to be taken along.

        Raises:
            DependencyError: If something it imports cannot be found here.
        """
        software = self.known(function, added)
        if software is not None and (software.shipped is not None or not ship):
            return software
        key = (id(function), added, ship)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._find(function, added, ship))
            self._under_way[key] = task
            task.add_done_callback(functools.partial(self._over, key))
        return await asyncio.shield(task)

    def _over(self, key: tuple[int, Added, bool], task: asyncio.Task[Software]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever waits is told; perhaps all have given up

    async def _find(self, function: Callable[..., Any], added: Added, ship: bool) -> Software:
        in_place, shipped, ahead = await asyncio.to_thread(_look_at, function, added, ship)
        software = self._by_content.get((in_place, shipped))
        if software is None:
            software = Software(next(self._numbers), in_place, shipped)
            self._by_content[in_place, shipped] = software
        if shipped is None:
            software.add(ahead, added)
        self._remember(function, added, software)
        return software

    async def ship(self, software: Software) -> Environment:
        """Return the environment to ship, finding it out now if no node needed it before.

        It is that of all functions which are the same where nothing is shipped. What one
        of them misses is not told here: others can do without it.
        """
        async with software.lock:
            if software.shipped is None:
                # Functions that are seen from here on are not in it.
                self._by_content.pop((software.in_place, None), None)
                software.shipped = await asyncio.to_thread(_provide_for, software)
        return software.shipped

    async def supply(self, software: Software, module: str) -> Supply | None:
        """Add what provides a module that a call has missed; ``None`` if it cannot be had.

        Each name is looked for once. Nodes that come from here on get it with the environment.
        """
        async with software.lock:
            shipped = software.shipped
            assert shipped is not None
            if software.first is None:
                software.first = shipped
            brought: tuple[Bundle, ...] = ()
            if module not in software.missed:
                # A worker may have been forked before its node got any of the rest.
                bundles, why = await asyncio.to_thread(_find_missing, module, software.first)
                software.missed[module] = why
                brought = tuple(bundle for bundle in bundles if bundle not in shipped.bundles)
            if brought:
                shipped = software.shipped = shipped.grown(brought)
                software.grown = next(self._numbers)
            if software.missed[module]:
                return None
            return Supply(software.grown, shipped, brought)

    def _remember(self, function: Callable[..., Any], added: Added, software: Software) -> None:
        key = (id(function), added)
        try:
            ref = weakref.ref(function, lambda _: self._by_function.pop(key, None))
        except TypeError:  # cannot be referred to weakly: looked at again each time
            return
        self._by_function[key] = (ref, software)


def _look_at(
    function: Callable[..., Any], added: Added, ship: bool
) -> tuple[Environment, Environment | None, Ahead]:
    # Imported here, in a thread: what analyses software takes 60 ms to import, which nobody
    # should wait for who has not submitted anything yet.
    from .environments import Environment, analyze, look_ahead

    ahead = look_ahead(function, added.carried)
    if not ship and not added.packages and not added.modules:
        return Environment.in_place(ahead.preload), None, ahead
    dependencies = analyze(
        function, packages=added.packages, modules=added.modules, carried=added.carried
    )
    in_place = Environment.in_place(dependencies.preload)
    return in_place, Environment.shipped(dependencies) if ship else None, ahead


def _find_missing(module: str, lacking: Environment) -> tuple[tuple[Bundle, ...], str]:
    """Return the bundles that serve a module which an environment lacks, or why there are none."""
    from .environments import find_missing

    try:
        bundles = find_missing(module, {bundle.digest for bundle in lacking.bundles})
    except DependencyError as exc:
        return (), str(exc)
    return bundles, "" if bundles else _NOWHERE


def _provide_for(software: Software) -> Environment:
    from .environments import Environment, provide

    packages = sorted(software.packages)
    dependencies = provide(software.imports.values(), software.groups, packages=packages)
    return Environment.shipped(dependencies, check=False)
