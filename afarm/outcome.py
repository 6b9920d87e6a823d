"""From how an attempt ended on its node to the exception that its caller sees."""

from __future__ import annotations

import signal
from asyncio import CancelledError
from typing import TypedDict

from ._core.actions import Completion
from ._wire import messages as wire
from .call import Call
from .errors import (
    DependencyError,
    FarmError,
    InvocationCrashed,
    InvocationError,
    InvocationTimeout,
    NodeLost,
    RemoteError,
    ResourceExhausted,
    SerializationError,
    Unschedulable,
    describe_amount,
    describe_exit,
)
from .payload import RemoteFailure
from .resources import Resources, Usage, astuple, format_bytes

# Raised as themselves these would be taken for the caller's own: a Ctrl-C, the end of
# an iteration, a cancelled task.
_CONFUSING = (
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    CancelledError,
    SystemExit,
)


# So many moments of a curve tell whether memory crept or leapt.
_LAST_MOMENTS = 3


def name_of(ended: wire.Ended) -> str:
    """Return how an attempt ended, in a word or two: ``"returned"``, ``"exhausted memory"``."""
    name = ended.outcome.name.lower()
    return f"{name} {ended.resource}" if ended.outcome is wire.Outcome.EXHAUSTED else name


def limit_of(resources: Resources, resource: str) -> float:
    """Return the limit of one resource, or 0 where none is stated."""
    value = getattr(resources, resource, None)
    return 0.0 if value is None else float(value)


def measured(usage: Usage, resource: str) -> float:
    """Return what was used of a resource."""
    return float(getattr(usage, resource, 0) or 0)


def raised_error(call: Call, failure: RemoteFailure) -> BaseException:
    """Return the exception for what the function raised."""
    exception = failure.exception
    if exception is None or isinstance(exception, _CONFUSING):
        return RemoteError(
            f"{call.category} raised {failure.type_name}: {failure.message} on node {call.node}, "
            f"which cannot be raised here as itself\n{failure.traceback}".rstrip(),
            type_name=failure.type_name,
            traceback=failure.traceback,
            **_facts(call),
        )
    exception.add_note(f"raised on node {call.node}:\n{failure.traceback}".rstrip())
    if isinstance(exception, ModuleNotFoundError) and exception.name:
        name = exception.name
        exception.add_note(
            _why_missing(call, name)
            or f"nothing that was seen imports {name!r}; if it is installed here, "
            f"options(modules=[{name!r}]) takes it along"
        )
    return exception


def _why_missing(call: Call, module: str) -> str:
    """Return why this side lacks a module that the node asked for; ``""`` if it did not ask."""
    software = call.target.software
    why = software.missed.get(module, "") if software is not None else ""
    return f"the node asked this side for {module!r}: {why}" if why else ""


def unusable_error(call: Call, failure: RemoteFailure) -> FarmError:
    """Return the error for a function or arguments that could not be loaded on the node."""
    text = f"{failure.type_name}: {failure.message}"
    where = f"{call.category} could not be loaded on node {call.node}"
    if isinstance(failure.exception, ModuleNotFoundError):
        name = failure.exception.name or ""
        remedy = _why_missing(call, name) or (
            "have it installed here, and name it in an import statement of the "
            f"function or its module, or take it along with options(modules=[{name!r}])"
        )
        return DependencyError(f"{where}: {text}; {remedy}", names=[name])
    remedy = ""
    if isinstance(failure.exception, AttributeError):
        remedy = (
            "; what a pickle names must be found in its module as the module's file has it: "
            "define it there, not at run time"
        )
    return SerializationError(
        f"{where}: {text}{remedy}\n{failure.traceback}".rstrip(), part="arguments"
    )


def unpicklable_error(call: Call, failure: RemoteFailure) -> SerializationError:
    """Return the error for a result that could not be pickled."""
    return SerializationError(
        f"the result of {call.category} cannot be pickled: {failure.message}"
        f"{'; ' + failure.detail if failure.detail else ''}; return plain data instead",
        part="result",
    )


def unloadable_error(call: Call, error: Exception) -> SerializationError:
    """Return the error for a result that cannot be unpickled here."""
    made = SerializationError(
        f"the result of {call.category} cannot be unpickled here: {error!r}; return plain data, "
        "or make what it needs importable here",
        part="result",
    )
    made.__cause__ = error
    return made


def crashed_error(call: Call, ended: wire.Ended) -> InvocationCrashed:
    """Return the error for a process that died, or left by itself."""
    return InvocationCrashed(
        f"the process of {call.category} {describe_exit(ended.exit)} on node {call.node}"
        f" (attempt {call.attempt}); {_advice(ended.exit)}",
        exit=ended.exit,
        **_facts(call),
    )


def result_lost_error(call: Call, ended: wire.Ended, reason: str) -> InvocationCrashed:
    """Return the error for a call that returned, but whose result was lost on its way."""
    return InvocationCrashed(
        f"the result of {call.category} was lost on node {call.node} (attempt {call.attempt}): "
        f"{reason}; look on the node for who ended it, and state more retries if the call may "
        "run again",
        exit=ended.exit,
        **_facts(call),
    )


def _advice(exit: int) -> str:
    """Return what to do about a process that ended so."""
    if exit >= 0:
        return "let the function return or raise instead of ending its process"
    if -exit in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return "native code failed: PYTHONFAULTHANDLER=1 in options(env=) shows where"
    return "look on the node for who sent the signal; options(retry_on=) tries it again"


def exhausted_error(call: Call, resource: str, reason: str) -> InvocationError:
    """Return the error for an invocation that went over what was stated, or over any node."""
    usage = call.usage or Usage()
    allocation = call.attempts[-1][2] if call.attempts else Resources()
    limit = limit_of(allocation, resource)
    told = describe_amount(resource, limit)
    if resource == "wall_time":
        return InvocationTimeout(
            f"{call.category} was stopped after its wall time of {told} on node {call.node}; "
            "state more wall_time in options(), or none",
            **_facts(call),
        )
    used = describe_amount(resource, measured(usage, resource))
    remedy = (
        f"state more {resource} or let its category size it"
        if limit_of(call.stated, resource)
        else reason or "no node has more"
    )
    return ResourceExhausted(
        f"{call.category} used {used} of its {told} on node {call.node} "
        f"(attempt {call.attempt}){_end_of_curve(usage, resource)}; {remedy}",
        resource=resource,
        limit=limit,
        **_facts(call),
    )


def _end_of_curve(usage: Usage, resource: str) -> str:
    """Return how memory went at last, for people; empty where that is not known."""
    last = usage.curve[-_LAST_MOMENTS:]
    if resource != "memory" or len(last) < 2:
        return ""
    went = ", ".join(f"{format_bytes(each.memory)} after {each.time:.2f} s" for each in last)
    return f", having had {went}"


def completion_error(call: Call, completion: Completion, reason: str) -> InvocationError:
    """Return the error for an invocation that the core gave up."""
    if completion is Completion.LOST:
        return NodeLost(
            f"{call.category} was lost with its node (attempt {call.attempt}): {reason}; see "
            "farm.nodes for its state, and state more retries if it may run again",
            **_facts(call),
        )
    if completion is Completion.UNSCHEDULABLE:
        wanted = ", ".join(
            describe_amount(name, value)
            for name, value in zip(_FIELDS, astuple(call.stated), strict=True)
            if value is not None
        )
        return Unschedulable(
            f"no node could ever hold {call.category} ({wanted or 'anything'}): {reason}",
            **_facts(call),
        )
    ended = call.ended[0] if call.ended else None
    return exhausted_error(call, ended.resource if ended else "memory", reason)


def nodeless_error(call: Call) -> Unschedulable:
    """Return the error for an invocation that waits on a farm without nodes that closes."""
    return Unschedulable(
        f"{call.category} was not run: all nodes of its farm were removed; add one with "
        "add_node() before the farm closes",
        **_facts(call),
    )


_FIELDS = ("cores", "memory", "disk", "gpus", "wall_time", "cpu_time", "processes")


class _Facts(TypedDict):
    """What every `InvocationError` carries."""

    node: str | None
    attempts: int
    usage: Usage | None
    output: str


def _facts(call: Call) -> _Facts:
    tail = ""
    if call.ended is not None and call.ended[0].output:
        tail = call.ended[0].output.decode(errors="replace")
    elif call.output is not None:
        tail = str(call.output)
    return {
        "node": call.node,
        "attempts": len(call.attempts or ()),
        "usage": call.usage,
        "output": tail,
    }
