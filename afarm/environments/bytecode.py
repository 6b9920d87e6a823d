"""What a code object imports, and which global names it looks up. Pure.

Bytecode rather than source: it is there for lambdas, for notebooks and for what was
made by ``exec``, and the exception table says which imports may fail without harm.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import resolve_name
from itertools import pairwise
from types import CodeType

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_NOISE = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "PRECALL", "PUSH_NULL", "TO_BOOL"})
_DYNAMIC = frozenset({"import_module", "__import__"})
_LOOKUPS = frozenset({"entry_points", "iter_entry_points"})
_COMPUTING = frozenset({"BINARY_ADD", "BINARY_MODULO", "BINARY_OP", "BUILD_STRING", "FORMAT_VALUE"})
_TOLERANT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True, slots=True)
class ImportSite:
    """One import in a code object.

    Attributes:
        module: The name as written, without the dots of a relative import.
        level: How many dots it had.
        members: The names after ``from module import``.
        line: Line number in the code's file; 0 where it is not known.
        optional: A failure is provided for: under ``except ImportError``, or under a
            condition that may not hold.
        lazy: It stands in a function inside the code, not in the code itself.
    """

    module: str
    level: int
    members: tuple[str, ...]
    line: int
    optional: bool
    lazy: bool


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """What one code object, with all code nested in it, refers to.

    Attributes:
        imports: In the order of the code.
        names: Global names, each with the attributes looked up on it at once, and the line
            where that is seen first: ``(("np", "linalg", "norm"), 12)``.
        groups: Texts any of which may name a group of entry points: those of code that looks
            some up; with the line where that code begins.
    """

    imports: tuple[ImportSite, ...]
    names: tuple[tuple[tuple[str, ...], int], ...]
    groups: tuple[tuple[str, int], ...] = ()


@lru_cache(maxsize=4096)
def read_code(code: CodeType) -> CodeFacts:
    """Return what a code object and the code nested in it import and look up."""
    imports: list[ImportSite] = []
    names: dict[tuple[str, ...], int] = {}
    groups: dict[str, int] = {}
    pending = [(code, False)]
    while pending:
        current, lazy = pending.pop()
        instructions = [step for step in dis.get_instructions(current) if step.opname not in _NOISE]
        imports.extend(_imports(current, instructions, lazy))
        for chain, line in _names(current, instructions):
            names.setdefault(chain, line)
        if not _LOOKUPS.isdisjoint(current.co_names):
            texts = (each for each in current.co_consts if isinstance(each, str))
            groups.update(dict.fromkeys(texts, current.co_firstlineno))
        pending.extend(
            # A class body runs with the code around it, a function's when it is called.
            (constant, lazy or bool(constant.co_flags & inspect.CO_OPTIMIZED))
            for constant in current.co_consts
            if isinstance(constant, CodeType)
        )
    return CodeFacts(tuple(imports), tuple(names.items()), tuple(groups.items()))


def _names(code: CodeType, steps: list[dis.Instruction]) -> Iterator[tuple[tuple[str, ...], int]]:
    line = code.co_firstlineno
    for at, step in enumerate(steps):
        line = _line(step) or line
        if step.opname not in _LOADS:
            continue
        chain = [str(step.argval)]
        for follower in steps[at + 1 : at + 8]:
            if follower.opname not in _ATTRIBUTES:
                break
            chain.append(str(follower.argval))
        yield tuple(chain), line


def _imports(code: CodeType, steps: list[dis.Instruction], lazy: bool) -> Iterator[ImportSite]:
    found: list[tuple[int, int, str, int, tuple[str, ...]]] = []
    line = code.co_firstlineno
    for at, step in enumerate(steps):
        line = _line(step) or line
        if step.opname == "IMPORT_NAME":
            level, members = (earlier.argval for earlier in steps[at - 2 : at])
            found.append((at, line, step.argval, level, tuple(members or ())))
        elif step.argval in _DYNAMIC and step.opname in _LOADS | _ATTRIBUTES:
            name = _literal_import(steps, at)
            if name:
                found.append((at, line, name, 0, ()))
    if not found:
        return
    skipped = _type_checking_ranges(steps)
    tolerant = _tolerant_ranges(code, steps)
    jumps = [
        (step.offset, step.argval)
        for step in steps
        if step.opcode in dis.hasjrel + dis.hasjabs and _may_skip(step.opname)
    ]
    for at, line, name, level, members in found:
        offset = steps[at].offset
        if any(start <= offset < end for start, end in skipped):
            continue
        optional = any(start <= offset < end for start, end in tolerant + jumps)
        yield ImportSite(name, level, members, line, optional, lazy)


def _line(step: dis.Instruction) -> int:
    # Python 3.13 made `starts_line` a bool and added `line_number`.
    number = getattr(step, "line_number", step.starts_line)
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def _may_skip(opname: str) -> bool:
    # An unconditional jump forward leads over an `else`.
    return "_IF_" in opname or opname in ("FOR_ITER", "JUMP_FORWARD")


def _literal_import(steps: list[dis.Instruction], at: int) -> str | None:
    """Return the module of ``import_module("...")`` when its name is a constant."""
    constants: list[str] = []
    for step in steps[at + 1 : at + 12]:
        if step.opname == "LOAD_CONST" and isinstance(step.argval, str):
            constants.append(step.argval)
        elif not constants or step.opname in _COMPUTING:
            return None
        elif "CALL" in step.opname:
            break
    if not constants:
        return None
    name = constants[0]
    if not name.startswith("."):
        return name
    try:
        return resolve_name(name, constants[1] if len(constants) > 1 else None)
    except ImportError:
        return None  # relative to a package that only the running code knows


def _type_checking_ranges(steps: list[dis.Instruction]) -> list[tuple[int, int]]:
    """Return the ranges of offsets under ``if TYPE_CHECKING:``, which never run."""
    return [
        (step.offset, follower.argval)
        for step, follower in pairwise(steps)
        if step.argval == "TYPE_CHECKING"
        and step.opname in _LOADS | _ATTRIBUTES
        and "JUMP" in follower.opname
        and "IF_FALSE" in follower.opname
    ]


def _tolerant_ranges(code: CodeType, steps: list[dis.Instruction]) -> list[tuple[int, int]]:
    """Return the ranges of offsets in which an ImportError is caught."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    at_offset = {step.offset: at for at, step in enumerate(steps)}

    def catches(target: int, seen: frozenset[int]) -> bool:
        if target in seen or target not in at_offset:
            return False
        if _handles(code, steps, at_offset, target):
            return True
        # A `finally` or another `except` inside: what encloses the handler may catch it.
        return any(
            catches(entry.target, seen | {target})
            for entry in entries
            if entry.start <= target < entry.end
        )

    return [(entry.start, entry.end) for entry in entries if catches(entry.target, frozenset())]


def _handles(
    code: CodeType, steps: list[dis.Instruction], at_offset: dict[int, int], target: int
) -> bool:
    """Return whether one of the ``except`` clauses that begin at an offset takes an ImportError."""
    at = at_offset[target]
    if steps[at].opname != "PUSH_EXC_INFO":
        return False
    at += 1
    if steps[at].opname == "WITH_EXCEPT_START":
        return "suppress" in code.co_names
    while at < len(steps):
        if steps[at].opname == "POP_TOP":
            return True  # a bare `except:`
        names = []
        while steps[at].opname in _LOADS | _ATTRIBUTES | {"BUILD_TUPLE"}:
            names.append(steps[at].argval)
            at += 1
        if steps[at].opname != "CHECK_EXC_MATCH":
            return False  # a `finally`
        if not _TOLERANT.isdisjoint(names):
            return True
        at = at_offset.get(steps[at + 1].argval, len(steps))  # the next clause
    return False
