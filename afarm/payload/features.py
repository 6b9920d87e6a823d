"""What the arguments of a call say about its needs before it runs: a few named numbers.

Only what costs next to nothing and runs no code of the user's, but for the attributes ``nbytes``
and ``shape``: ``len`` of a data frame that is computed elsewhere would compute it.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from numbers import Real
from types import CodeType, FunctionType, MethodType
from typing import Any

from .arguments import Passed
from .named_files import NAMED_FILES, may_name_a_file

# Numbers of one call: sizers look at no more.
MOST_FEATURES = 8

# Whose length is known without asking the object, and so are those of their subclasses.
_COUNTED: tuple[type, ...] = (list, tuple, dict, set, frozenset, deque, range)
_BYTES: tuple[type, ...] = (bytes, bytearray)
_EXACT: dict[type, str] = {
    **dict.fromkeys((int, float), ""),
    **dict.fromkeys(_COUNTED, "len"),
    **dict.fromkeys(_BYTES, "size"),
}
_SAY_NOTHING = frozenset({bool, type(None), complex, FunctionType})


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that take positional arguments, in order.

    Empty where only running code of the user's would tell: the arguments of other callables than
    functions and methods are named by their positions.
    """
    skipped = 0
    if type(function) is MethodType:
        function, skipped = function.__func__, 1
    code = function.__code__ if type(function) is FunctionType else None
    if not isinstance(code, CodeType):
        return ()
    return code.co_varnames[skipped : code.co_argcount]


def features_of(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, float]:
    """Return what the arguments of a call tell: 1 to 3 us for an ordinary one.

    ``n``: a number; ``len(n)``: how many items, or characters; ``size(n)``: bytes of an array, of
    an object on the nodes, of the file that it names; ``cells(n)``: of a table; ``n.field``: the
    same of a dataclass's field. What is not finite is left out. Raises nothing, whatever the
    objects do.

    Args:
        names: The function's `parameters`.
        args: By position; those beyond ``names`` are called ``argument 3``.
        kwargs: By name.
    """
    found: dict[str, float] = {}
    for number, value in enumerate(args):
        if len(found) >= MOST_FEATURES:
            break
        name = names[number] if number < len(names) else f"argument {number + 1}"
        _add(found, name, value)
    for name, value in kwargs.items():
        if len(found) >= MOST_FEATURES:
            break
        _add(found, name, value)
    return found


def _add(found: dict[str, float], name: str, value: Any) -> None:
    """Add what one argument tells."""
    kind = type(value)
    if kind in _SAY_NOTHING:
        return
    try:
        how = _EXACT.get(kind)
        if how == "":
            _put(found, name, value)
        elif how is not None:
            found[f"{how}({name})"] = float(len(value))
        elif issubclass(kind, str):
            _add_text(found, name, str.__str__(value))
        elif not _add_other(found, name, value, kind):
            _add_fields(found, name, value, kind)
    except Exception:  # whatever a property of the user's raises: it tells nothing
        return


def _put(found: dict[str, float], name: str, value: Any) -> bool:
    number = float(value)
    if math.isfinite(number):
        found[name] = number
    return True


def _add_text(found: dict[str, float], name: str, text: str) -> None:
    size = NAMED_FILES.size(text) if may_name_a_file(text) else None
    if size is not None:
        found[f"size({name})"] = float(size)
    else:
        found[f"len({name})"] = float(len(text))


def _add_other(found: dict[str, float], name: str, value: Any, kind: type) -> bool:
    """Add what an object of another type tells; return whether it is known how it tells."""
    if issubclass(kind, Real):  # numpy's scalars, fractions
        return _put(found, name, value)
    if issubclass(kind, Passed):
        size = value._known_size()
        return size is None or _put(found, f"size({name})", size)
    if issubclass(kind, os.PathLike):
        size = NAMED_FILES.size(os.fspath(value))
        return size is None or _put(found, f"size({name})", size)
    for builtin in _COUNTED:
        if issubclass(kind, builtin):
            return _put(found, f"len({name})", builtin.__len__(value))  # type: ignore[attr-defined]
    # Of the type: an object that answers to every name may ask somebody far away.
    if hasattr(kind, "nbytes"):
        nbytes = value.nbytes
        return isinstance(nbytes, Real) and _put(found, f"size({name})", nbytes)
    if hasattr(kind, "shape"):
        return _put(found, f"cells({name})", math.prod(value.shape))
    return False


def _add_fields(found: dict[str, float], name: str, value: Any, kind: type) -> None:
    """Add what the fields of a dataclass tell, but for its dataclasses."""
    if not dataclasses.is_dataclass(kind):
        return
    for field in dataclasses.fields(kind):
        if len(found) >= MOST_FEATURES:
            return
        inner = getattr(value, field.name, None)
        if _EXACT.get(type(inner)) is not None:
            _add(found, f"{name}.{field.name}", inner)


def sizes_of_results(
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    results: list[Any],
) -> tuple[tuple[str, int], ...]:
    """Return what the sizes of earlier calls' results are called, which nobody knows yet.

    Args:
        names, args, kwargs: As in `features_of`.
        results: The invocations that stand for them.

    Returns:
        Names, and the places in ``results``.
    """
    places = {id(result): place for place, result in enumerate(results)}
    named = [
        (names[number] if number < len(names) else f"argument {number + 1}", value)
        for number, value in enumerate(args)
    ]
    return tuple(
        (f"size({name})", places[id(value)])
        for name, value in [*named, *kwargs.items()]
        if id(value) in places
    )[:MOST_FEATURES]
