"""What pickled arguments call to reach a value that does not lie in them.

A `Ref` is pickled as a call of `ref`, an earlier invocation given as an argument as a
call of `dependency`. Both find the value through `source`, which the worker sets while
it loads arguments.
"""

from __future__ import annotations

from typing import Any, Protocol


class Source(Protocol):
    """Where the values are."""

    def dependency(self, index: int) -> Any:
        """Return the result of the ``index``-th earlier invocation among the arguments, from 1."""

    def blob(self, blob: int) -> Any:
        """Return the object that was put on the farm as ``blob``."""


source: Source | None = None


def dependency(index: int) -> Any:
    """Return the result of the ``index``-th earlier invocation among the arguments, from 1.

    Raises:
        RuntimeError: Outside a worker that loads arguments.
    """
    if source is None:
        raise RuntimeError("the result of another invocation is only to be had in a worker")
    return source.dependency(index)


def ref(blob: int) -> Any:
    """Return the object that was put on the farm as ``blob``.

    Raises:
        RuntimeError: Outside a worker that loads arguments.
    """
    if source is None:
        raise RuntimeError("what a Ref stands for is only to be had in a worker")
    return source.blob(blob)
