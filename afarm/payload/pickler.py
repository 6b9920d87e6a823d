"""cloudpickle's pickler, as all that leaves this side is pickled with."""

from __future__ import annotations

import functools
import io
import types
from collections import ChainMap
from typing import Any, ClassVar

import cloudpickle

from .._agent import remade
from .importing import has_no_file, importable

# Where a code object's constructor takes the name of its file.
_FILE = 10


def _reduce_code(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
    """Return how a code object is made again, with the name of its file.

    cloudpickle from 3.1.3 on leaves that out, so that a pickle does not depend on it; then no
    traceback could say where in the user's program it was raised.
    """
    make, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, (*arguments[:_FILE], code.co_filename, *arguments[_FILE + 1 :])


def _reduce_cached(function: Any) -> str | tuple[Any, ...]:
    if importable(function):
        return str(function.__qualname__)
    parameters = function.cache_parameters()
    return remade.cached, (function.__wrapped__, parameters["maxsize"], parameters["typed"])


def _reduce_cached_property(found: functools.cached_property[Any]) -> tuple[Any, ...]:
    # Before Python 3.12 it holds a lock.
    return remade.cached_property, (found.func, found.attrname)


def _reduce_generic(make: Any, registry: Any, default: Any) -> tuple[Any, ...]:
    implementations = [(cls, each) for cls, each in registry.items() if cls is not object]
    return make, (default,), implementations, None, None, remade.implement


def _reduce_generic_method(found: functools.singledispatchmethod[Any]) -> tuple[Any, ...]:
    registry = found.dispatcher.registry
    return _reduce_generic(remade.generic_method, registry, found.func)


# By its code a function is recognised as one that `functools.singledispatch` has made.
_generic: Any = functools.singledispatch(lambda _: None)
_GENERIC = _generic.__code__


_NAMED = (types.FunctionType, type, types.ModuleType)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
    """Pickles by value what cannot be imported elsewhere; code keeps the name of its file."""

    dispatch_table: ClassVar = ChainMap(
        {
            types.CodeType: _reduce_code,
            type(functools.lru_cache(lambda _: None)): _reduce_cached,
            functools.cached_property: _reduce_cached_property,
            functools.singledispatchmethod: _reduce_generic_method,
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _NAMED):
            name = obj.__name__ if isinstance(obj, types.ModuleType) else obj.__module__
            if isinstance(name, str):
                has_no_file(name)  # if so, it is pickled by value from here on
        if type(obj) is types.FunctionType and obj.__code__ is _GENERIC and not importable(obj):
            registry = obj.registry  # type: ignore[attr-defined]
            return _reduce_generic(remade.generic, registry, registry[object])
        return super().reducer_override(obj)


def dumps(value: object) -> bytes:
    """Return the pickle of a value, in one piece.

    Raises:
        Exception: Whatever pickling it raises.
    """
    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()
