"""What software each function needs, found once and in a thread."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .payload.needs import Need

if TYPE_CHECKING:
    from .environments import Environment


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
    """

    id: int
    in_place: Environment
    function: Callable[..., Any]
    added: Added = NOTHING_ADDED
    shipped: Environment | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SoftwareLibrary:
    """Remembers what was found out about each function.

    Args:
        numbers: Where numbers for environments come from.
    """

    def __init__(self, numbers: itertools.count[int]) -> None:
        self._numbers = numbers
        self._by_function: dict[tuple[int, Added], tuple[weakref.ref[Any], Software]] = {}
        self._by_content: dict[tuple[Environment, Environment | None], Software] = {}

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
        """Find out what a function needs; in a thread.

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
        in_place, shipped = await asyncio.to_thread(_look_at, function, added, ship)
        software = self._by_content.get((in_place, shipped))
        if software is None:
            software = Software(next(self._numbers), in_place, function, added, shipped)
            self._by_content[in_place, shipped] = software
        self._remember(function, added, software)
        return software

    async def ship(self, software: Software) -> Environment:
        """Return the environment to ship, finding it out now if no node needed it before."""
        async with software.lock:
            if software.shipped is None:
                _, software.shipped = await asyncio.to_thread(
                    _look_at, software.function, software.added, True
                )
        assert software.shipped is not None
        return software.shipped

    def _remember(self, function: Callable[..., Any], added: Added, software: Software) -> None:
        key = (id(function), added)
        try:
            ref = weakref.ref(function, lambda _: self._by_function.pop(key, None))
        except TypeError:  # cannot be referred to weakly: looked at again each time
            return
        self._by_function[key] = (ref, software)


def _look_at(
    function: Callable[..., Any], added: Added, ship: bool
) -> tuple[Environment, Environment | None]:
    # Imported here, in a thread: what analyses software takes 60 ms to import, which nobody
    # should wait for who has not submitted anything yet.
    from .environments import Environment, analyze, imported_ahead

    if not ship and not added.packages and not added.modules:
        return Environment.in_place(imported_ahead(function)), None
    dependencies = analyze(
        function, packages=added.packages, modules=added.modules, carried=added.carried
    )
    in_place = Environment.in_place(dependencies.preload)
    return in_place, Environment.shipped(dependencies) if ship else None
