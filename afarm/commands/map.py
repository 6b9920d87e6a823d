"""``afarm map``: a function over the lines of a file, results as JSON lines."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiofiles

import afarm


class UsageError(Exception):
    """What was asked for cannot be: the message says why. Exit status 2."""


def load_function(name: str) -> Callable[..., Any]:
    """Return the function called ``MODULE:FUNCTION``; the working directory is searched first.

    Raises:
        UsageError: If there is no such module or no such function in it.
    """
    module_name, colon, path = name.partition(":")
    if not (colon and module_name and path):
        raise UsageError(f"{name!r} names no function; write it like 'mymodule:myfunction'")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise UsageError(f"no module {exc.name!r} in the working directory or installed") from exc
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError as exc:
        raise UsageError(f"module {module_name!r} has no function {path!r}") from exc
    if not callable(found):
        raise UsageError(f"{name!r} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def to_json(value: Any) -> str:
    """Return a result as one line of JSON; numpy values as numbers and lists.

    Raises:
        TypeError: If JSON has no form for it.
    """
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    # numpy's arrays and scalars, without importing numpy for those who do not use it.
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


async def read_inputs(path: str, *, as_json: bool) -> AsyncIterator[Any]:
    """Yield what each line of a file means; ``-`` is standard input. Empty lines are none.

    Raises:
        UsageError: If the file cannot be read, or a line of it is not JSON where it should be.
    """
    async with AsyncExitStack() as stack:
        try:
            lines = (
                aiofiles.stdin
                if path == "-"
                else await stack.enter_async_context(aiofiles.open(path, encoding="utf-8"))
            )
        except OSError as exc:
            raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
        number = 0
        async for line in lines:
            number += 1
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            try:
                yield json.loads(text) if as_json else text
            except ValueError as exc:
                raise UsageError(f"{path}, line {number}: not JSON: {exc}") from exc


async def run(
    function: Callable[..., Any],
    inputs: str,
    *,
    nodes: Sequence[Any] | None,
    out: str | None,
    as_json: bool,
    options: dict[str, Any],
    progress: bool | None,
) -> int:
    """Call ``function`` with each input and write the results in the inputs' order.

    Line N of the output is the result of input N; where a call failed it is ``null``, and
    standard error says why.

    Args:
        function: Takes one argument.
        inputs: A file of lines, or ``-``.
        nodes: As `afarm.Farm` takes them.
        out: A file for the results; ``None``: standard output.
        as_json: Whether each input is a line of JSON and not text.
        options: As ``Farm.options`` takes them.
        progress: As in ``Farm(progress=)``.

    Returns:
        The number of calls that failed.

    Raises:
        UsageError: If the inputs cannot be read or the results not be written.
    """
    failed = 0
    async with AsyncExitStack() as stack:
        try:
            results = (
                aiofiles.stdout
                if out is None
                else await stack.enter_async_context(aiofiles.open(out, "w", encoding="utf-8"))
            )
        except OSError as exc:
            raise UsageError(f"cannot write {out}: {exc.strerror}") from exc
        farm = await stack.enter_async_context(afarm.Farm(nodes, progress=progress))
        answers = farm.options(**options).map(
            function, read_inputs(inputs, as_json=as_json), return_exceptions=True
        )
        number = 0
        async for answer in answers:
            number += 1
            line, problem = _as_line(answer)
            if problem:
                failed += 1
                await aiofiles.stderr.write(f"afarm map: input {number}: {problem}\n")
            await results.write(line + "\n")
            # Whoever reads the other end of a pipe sees each result when it is there.
            await results.flush()
    return failed


def _as_line(answer: Any) -> tuple[str, str | None]:
    """Return the line of output for an answer, and what went wrong with it, if anything."""
    if isinstance(answer, BaseException):
        return "null", f"{type(answer).__name__}: {answer}"
    try:
        return to_json(answer), None
    except (TypeError, ValueError) as exc:
        return "null", f"the result cannot be written: {exc}"
