"""Code without docstrings: a seventh of what is sent to nodes, where nobody reads them."""

from __future__ import annotations

import inspect
import opcode
import sys
from types import CodeType

# `Py_CO_HAS_DOCSTRING`, since Python 3.14.
_HAS_DOCSTRING = 0x4000000

_STORE_NAME = opcode.opmap["STORE_NAME"]
_LOAD_CONST = opcode.opmap["LOAD_CONST"]


def without_docstrings(code: CodeType) -> CodeType:
    """Return the same code, and all that is defined in it, with empty docstrings."""
    docstring = _docstring_of(code)
    constants: list[object] = [
        without_docstrings(each) if isinstance(each, CodeType) else each for each in code.co_consts
    ]
    if docstring >= 0:
        constants[docstring] = ""
    return code.replace(co_consts=tuple(constants))


def _docstring_of(code: CodeType) -> int:
    """Return the place of a docstring among the constants, or -1."""
    if code.co_flags & inspect.CO_OPTIMIZED:
        return 0 if _function_has_one(code) else -1
    if "__doc__" not in code.co_names:
        return -1
    # A module or a class: its code stores it, right after loading it.
    name, raw = code.co_names.index("__doc__"), code.co_code
    for at in range(2, len(raw), 2):
        if raw[at] == _STORE_NAME and raw[at + 1] == name and raw[at - 2] == _LOAD_CONST:
            return raw[at - 1]
    return -1


def _function_has_one(code: CodeType) -> bool:
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # The first constant is the docstring, or None; only comprehensions have neither.
    first = code.co_consts[0] if code.co_consts else None
    return isinstance(first, str) and not code.co_name.startswith("<")
