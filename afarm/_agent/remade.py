"""Made again from its parts: what pickle knows by name alone, and ``__main__`` defines.

The farm's pickler (`payload.pickler`) takes a cached function, a generic function or a cached
property apart; unpickling calls what is here. The module is streamed to every node.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

Implementations = Sequence[tuple[type, Callable[..., Any]]]


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return a function with a cache, which is empty, as `functools.lru_cache` makes it."""
    return functools.lru_cache(maxsize, typed)(function)


def generic(function: Callable[..., Any]) -> Any:
    """Return a function that dispatches on its first argument's type; `implement` adds to it."""
    return functools.singledispatch(function)


def generic_method(function: Any) -> Any:
    """Return the same for a method."""
    return functools.singledispatchmethod(function)


def implement(dispatcher: Any, implementations: Implementations) -> None:
    """Add the implementations for other types than `object`."""
    for cls, function in implementations:
        dispatcher.register(cls, function)


def cached_property(function: Callable[..., Any], name: str | None) -> Any:
    """Return a property that is computed once for each instance."""
    made = functools.cached_property(function)
    if name is not None:
        made.attrname = name
    return made
