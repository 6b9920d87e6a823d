"""Why a connection ended, in words that say what to do."""

from __future__ import annotations

from ..errors import NodeError, describe_exit
from .bootstrap import NO_PYTHON, TAG

# Of standard error, kept to be shown with a failure (bytes).
KEPT = 4096


class Stderr:
    """The end of what a node printed to standard error."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, data: bytes) -> None:
        """Take more of it."""
        self._kept = (self._kept + data)[-KEPT:]

    @property
    def lines(self) -> list[str]:
        """Its last lines, without the empty ones."""
        text = self._kept.decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def shown(self, count: int = 5) -> str:
        """Return the last lines to be put behind a message, or nothing."""
        return "".join(f"\n  | {line}" for line in self.lines[-count:])


def describe_end(
    name: str, code: int | None, stderr: Stderr, exc: Exception | None
) -> NodeError | None:
    """Return the error that says why a node's connection ended, or ``None`` if it was in order.

    Args:
        name: The node's.
        code: Exit code of the program, minus the signal's number if one ended it; ``None``
            where that is not known.
        stderr: What it said.
        exc: What the connection itself failed with.
    """
    if code == 0 and exc is None:
        return None
    if code == NO_PYTHON:
        found = next((line for line in reversed(stderr.lines) if "afarm:" in line), "")
        version = TAG.rpartition("-")[2]
        version = f"{version[0]}.{version[1:]}"
        error = NodeError(
            f"node {name}: {found.partition('afarm:')[2].strip() or 'no usable Python'}; install"
            f" Python {version} there, the farm's own version, name one with"
            " SSHNode(python=...), or run the farm under a version that the node has",
            node=name,
        )
    elif code == 127:
        error = NodeError(
            f"node {name}: the command was not found there{stderr.shown()}", node=name
        )
    elif exc is not None and not code:
        error = NodeError(f"node {name}: the connection was lost: {exc}", node=name)
    elif code is not None:
        error = NodeError(
            f"node {name}: the agent {describe_exit(code)}{stderr.shown()}", node=name
        )
    else:
        error = NodeError(f"node {name}: the connection was closed{stderr.shown()}", node=name)
    error.__cause__ = exc
    return error
