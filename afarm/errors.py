"""Every exception of the project.

    FarmError
      InvocationError            the call did not return a result
        ResourceExhausted          it outgrew what was stated, or the largest node
        InvocationTimeout          its wall time ran out (also a TimeoutError)
        InvocationCrashed          its process died
        NodeLost                   its node was lost on every try
        Unschedulable              no node of the farm could ever hold it
        RemoteError                it raised what cannot be loaded here; carries its text
      DependencyError            a function's software could not be found, shipped or imported
      SerializationError         the function, an argument or the result cannot be pickled
      NodeError                  a node could not be reached, started or kept
        NoNodesError               none of them; one line for each
      RecordError                a record cannot be opened, or is none
      ProtocolError              the two ends of a connection disagree
        LocalProtocolError         a fault of this side: a bug here
        RemoteProtocolError        a fault of the other side

The function's own exception is not among them: it is raised as itself.

This module is streamed to nodes: standard library only.
"""

from __future__ import annotations

import signal as _signal
from collections.abc import Mapping, Sequence

from .resources import Resources, Usage, format_bytes


class FarmError(Exception):
    """The base of everything this library raises."""

    # The default calls the class with `args` alone, and some of these need more than that.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(kind: type[FarmError], args: tuple[object, ...]) -> FarmError:
    """Return an unpickled error, before its attributes are set."""
    error = kind.__new__(kind, *args)
    error.args = args  # an OSError, as InvocationTimeout is, leaves this to `__init__`
    return error


class InvocationError(FarmError):
    """An invocation ended without a result.

    Attributes:
        node: The name of the node of its last attempt, or ``None`` if it never started.
        attempts: How many times it was tried.
        usage: What the last attempt used, where it was measured.
        output: The end of what it printed.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        attempts: int = 0,
        usage: Usage | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message)
        self.node = node
        self.attempts = attempts
        self.usage = usage
        self.output = output

    def __str__(self) -> str:
        message = super().__str__()
        if not self.output.strip():
            return message
        shown = "\n".join(f"  | {line}" for line in self.output.rstrip().splitlines()[-10:])
        return f"{message}\nthe last lines of its output:\n{shown}"


class ResourceExhausted(InvocationError):
    """An invocation went over its allocation.

    Attributes:
        resource: The name of the resource, as in `Resources`.
        limit: The limit it went over, in the resource's base unit.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str,
        limit: float,
        node: str | None = None,
        attempts: int = 0,
        usage: Usage | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message, node=node, attempts=attempts, usage=usage, output=output)
        self.resource = resource
        self.limit = limit


class InvocationTimeout(InvocationError, TimeoutError):
    """An invocation's ``wall_time`` ran out."""


class InvocationCrashed(InvocationError):
    """The process of an invocation died, or left through ``SystemExit``.

    Attributes:
        signal: The number of the signal that ended it, or ``None``.
        exit_code: Its exit code, or ``None`` where a signal ended it.
    """

    def __init__(
        self,
        message: str,
        *,
        exit: int,
        node: str | None = None,
        attempts: int = 0,
        usage: Usage | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message, node=node, attempts=attempts, usage=usage, output=output)
        self.signal = -exit if exit < 0 else None
        self.exit_code = exit if exit >= 0 else None


class NodeLost(InvocationError):
    """The node of an invocation was lost on every try."""


class Unschedulable(InvocationError):
    """No node that the farm has could ever hold the invocation."""


class RemoteError(InvocationError):
    """The function raised something that cannot be, or must not be, raised here as itself.

    Attributes:
        type_name: The qualified name of the exception's type.
        traceback: The remote traceback, as text.
    """

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        traceback: str = "",
        node: str | None = None,
        attempts: int = 0,
        usage: Usage | None = None,
        output: str = "",
    ) -> None:
        super().__init__(message, node=node, attempts=attempts, usage=usage, output=output)
        self.type_name = type_name
        self.traceback = traceback


class DependencyError(FarmError):
    """A function's software could not be found, shipped or imported.

    Attributes:
        names: The modules or distributions it is about.
    """

    def __init__(self, message: str, *, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class SerializationError(FarmError):
    """The function, an argument or the result cannot be pickled.

    Attributes:
        part: Which part: ``"function"``, ``"argument 2"``, ``"argument 'data'"``, ``"result"``.
    """

    def __init__(self, message: str, *, part: str = "") -> None:
        super().__init__(message)
        self.part = part


class NodeError(FarmError):
    """A node could not be reached, started or kept.

    Attributes:
        node: The node's name.
    """

    def __init__(self, message: str, *, node: str = "") -> None:
        super().__init__(message)
        self.node = node


class NoNodesError(NodeError):
    """No node could be opened.

    Attributes:
        reasons: Why, by node name.
    """

    def __init__(self, message: str, *, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class RecordError(FarmError):
    """The file of a record cannot be opened, is not a record, or holds none of what is asked."""


class ProtocolError(FarmError):
    """The two ends of a connection disagree."""


class LocalProtocolError(ProtocolError):
    """This side was about to send what the protocol does not allow: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol does not allow."""


def describe_exit(exit: int) -> str:
    """Return ``"was killed by SIGSEGV"`` or ``"exited with code 3"``."""
    if exit >= 0:
        return f"exited with code {exit}"
    try:
        name = _signal.Signals(-exit).name
    except ValueError:
        name = f"signal {-exit}"
    return f"was killed by {name}"


def describe_amount(resource: str, amount: float) -> str:
    """Return an amount of a resource for people: ``"2.0 GiB"``, ``"30 s"``, ``"4 processes"``."""
    if resource in ("memory", "disk"):
        return format_bytes(amount)
    if resource in ("wall_time", "cpu_time"):
        return f"{amount:g} s"
    return f"{amount:g} {resource}"


def describe_resources(resources: Resources, sources: Mapping[str, str] | None = None) -> str:
    """Return ``"2 cores, 4.0 GiB of memory"``: what is stated, or ``"nothing"``.

    Args:
        resources: The amounts.
        sources: Where some come from, by the resource's name; put in parentheses behind it.
    """
    parts = []
    behind = {name: f" ({source})" for name, source in (sources or {}).items()}
    if resources.cores is not None:
        cores = f"{resources.cores:g} core{'s' if resources.cores != 1 else ''}"
        parts.append(cores + behind.get("cores", ""))
    if resources.memory is not None:
        memory = f"{format_bytes(resources.memory)} of memory"
        parts.append(memory + behind.get("memory", ""))
    if resources.disk is not None:
        parts.append(f"{format_bytes(resources.disk)} of disk")
    if resources.gpus:
        gpus = f"{resources.gpus} GPU{'s' if resources.gpus != 1 else ''}"
        parts.append(gpus + behind.get("gpus", ""))
    return ", ".join(parts) or "nothing"
