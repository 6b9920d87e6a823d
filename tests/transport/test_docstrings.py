"""Docstrings are taken out of code, and nothing else is."""

from __future__ import annotations

import textwrap
from types import CodeType, FunctionType

import afarm.transport.docstrings as module
from afarm.transport.docstrings import without_docstrings

SOURCE = '''
"""Of the module."""
import functools

TEXT = "kept"

class Outer:
    """Of a class."""

    NAME = "kept"

    class Inner:
        """Of one inside."""

    def method(self):
        """Of a method."""
        return "kept " + self.NAME

    def plain(self):
        return "a first constant"

async def waits():
    """Of a coroutine function."""

def makes():
    """Of one that makes others."""
    def inner():
        """Of one inside."""
        return "kept"
    return inner, lambda: "kept", [x + "kept" for x in "ab"], {"kept": x for x in "a"}

def no_docstring():
    "kept" + TEXT
    return TEXT
'''


def test_docstrings_go_and_all_else_stays() -> None:
    code = compile(textwrap.dedent(SOURCE), "made.py", "exec", dont_inherit=True)
    assert b"Of " not in _everything(without_docstrings(code))
    found: dict[str, object] = {"__name__": "made"}
    exec(without_docstrings(code), found)
    outer = found["Outer"]
    assert (found["__doc__"], outer.__doc__, outer.Inner.__doc__) == ("", "", "")  # type: ignore[attr-defined]
    assert (outer().method(), outer().plain()) == ("kept kept", "a first constant")  # type: ignore[operator]
    assert outer.__qualname__ == "Outer"  # type: ignore[attr-defined]
    inner, unnamed, listed, mapped = found["makes"]()  # type: ignore[operator]
    assert (inner(), unnamed(), listed, mapped) == (
        "kept",
        "kept",
        ["akept", "bkept"],
        {"kept": "a"},
    )
    assert found["no_docstring"]() == "kept"  # type: ignore[operator]


def test_it_works_on_code_as_it_is_written_here() -> None:
    assert without_docstrings.__doc__
    assert isinstance(without_docstrings, FunctionType)
    bare = without_docstrings(without_docstrings.__code__)
    made = FunctionType(bare, vars(module), "made")
    assert not made.__doc__
    assert made(SOURCE_CODE).co_consts == without_docstrings(SOURCE_CODE).co_consts


SOURCE_CODE = compile(SOURCE, "made.py", "exec", dont_inherit=True)


def _everything(code: CodeType) -> bytes:
    """Return all texts among the constants of code and what is defined in it."""
    texts = [each for each in code.co_consts if isinstance(each, str)]
    inside = [each for each in code.co_consts if isinstance(each, CodeType)]
    return "\n".join(texts).encode() + b"".join(map(_everything, inside))
