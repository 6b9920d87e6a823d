"""A digest of what something is: the same in every process in which it is the same.

Pickles are not: sets have an order of their own in each process, and whether two equal
strings are one object decides what is written. So what is made of plain values is
described by its content, and code by what it does, without file names and lines.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import types
from collections.abc import Callable, Iterator
from typing import Any


def code_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's own code; of its name, where it has none in Python."""
    seen = unwrapped(function)
    code = getattr(seen, "__code__", None)
    if isinstance(code, types.CodeType):
        return _digest_of_code(code)
    kind = seen if isinstance(seen, type) else type(seen)
    name = getattr(seen, "__qualname__", kind.__qualname__)
    return hashlib.sha256(f"{kind.__module__}.{name}".encode()).hexdigest()[:32]


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside partials and bound methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        else:
            return function


@functools.lru_cache(maxsize=1024)
def _digest_of_code(code: types.CodeType) -> str:
    return hashlib.sha256(b"".join(describe_code(code))).hexdigest()[:32]


def describe_code(code: types.CodeType) -> Iterator[bytes]:
    """Yield what decides what a code object does, and its name."""
    facts = (
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_exceptiontable,
    )
    yield b"code"
    yield plain(facts)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from describe_code(constant)
        else:
            yield plain(constant)


def plain(value: object) -> bytes:
    """Return the bytes of a value made of plain ones: numbers, text, containers of them.

    Version 2 of the format writes no references, so that equal values are equal bytes, and
    sets in an order that does not depend on the process.
    """
    return marshal.dumps(value, 2)  # type: ignore[arg-type]  # ValueError if it is not
