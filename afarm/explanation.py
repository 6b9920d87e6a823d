"""Why an invocation waits, or where it went and why: what `Farm.explain` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._core.explain import Verdict, judge
from ._core.invocation import State
from .call import Attempt, Call
from .errors import describe_resources
from .resources import RESOURCE_NAMES, Resources, format_bytes
from .words import duration

if TYPE_CHECKING:
    from ._core.farm_state import InvocationView
    from .scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an invocation is where it is.

    Attributes:
        invocation: Its number in the farm.
        category: Whose kind it is.
        state: ``"waiting"``, ``"staging"``, ``"running"`` or ``"done"``.
        reason: Why, in a sentence.
        allocation: What it has, had last, or would get now; ``None`` while nobody knows.
        basis: Where that comes from.
        nodes: What each node says to it; empty unless it waits for one.
        attempts: Its tries so far.
    """

    invocation: int
    category: str
    state: str
    reason: str
    allocation: Resources | None
    basis: str
    nodes: tuple[Verdict, ...]
    attempts: tuple[Attempt, ...]

    @property
    def why(self) -> str:
        """The reason, and what the nodes say, in one line."""
        told = [f"{verdict.node}: {verdict.why}" for verdict in self.nodes]
        return "; ".join([self.reason, *told])

    def __str__(self) -> str:
        lines = [f"#{self.invocation} of {self.category} is {self.state}: {self.reason}"]
        if self.allocation is not None:
            lines.append(f"  size: {describe_resources(self.allocation)} ({self.basis})")
        lines += [_describe_attempt(attempt) for attempt in self.attempts]
        lines += [f"  node {verdict.node}: {verdict.why}" for verdict in self.nodes]
        return "\n".join(lines)


def explain(scheduler: Scheduler, call: Call, *, nodes: int | None = None) -> Explanation:
    """Return why a call is where it is.

    Args:
        scheduler: Of its farm.
        call: What is explained.
        nodes: How many nodes are asked at most; ``None``: all.
    """
    attempts = tuple(Attempt(*row) for row in call.attempts)
    view: InvocationView | None = None
    if call.id in scheduler.calls and call.entered:
        try:
            view = scheduler.state.invocation_view(call.id)
        except KeyError:  # the core has not heard of it yet, or has done with it
            view = None
    verdicts: tuple[Verdict, ...] = ()
    allocation = attempts[-1].allocation if attempts else None
    if view is not None and view.state is State.WAITING:
        only = call.target.proto.node
        asked = scheduler.state.nodes()[:nodes]
        verdicts = tuple(judge(node, view.allocation, only) for node in asked)
        allocation = view.allocation
    state = "done" if call.id not in scheduler.calls else call.state
    return Explanation(
        invocation=call.id,
        category=call.category,
        state=state,
        reason=_reason(scheduler, call, view, verdicts, state),
        allocation=allocation,
        basis=_basis(scheduler, call, allocation),
        nodes=verdicts,
        attempts=attempts,
    )


def _reason(
    scheduler: Scheduler,
    call: Call,
    view: InvocationView | None,
    nodes: tuple[Verdict, ...],
    state: str,
) -> str:
    if state == "done":
        if not call.attempts:
            return "it ended without having been given to a node"
        return f"its last attempt, on node {call.node}, ended: {call.attempts[-1][4]}"
    if not call.entered:
        return _before_entering(call)
    if view is None:
        return "it has just been submitted"
    if view.state is State.WAITING:
        return _why_waiting(scheduler, nodes)
    if view.state is State.QUEUED:
        return f"it was sent ahead to node {view.node}, where it follows the next call that ends"
    if view.state is not State.RUNNING:
        return f"it is on node {view.node}, and {view.state.name.lower()}"
    if state == "staging":
        return f"node {view.node} is getting what it needs: packages, its function, its arguments"
    return f"it runs on node {view.node}, which had room for it"


def _before_entering(call: Call) -> str:
    if call.target.request is None:
        return "it is being found out which packages its function needs"
    arguments = call.arguments
    missing = [one for one in arguments.invocations if not one.done()] if arguments else []
    if missing:
        first = ", ".join(repr(one) for one in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"it waits for its arguments: {first}{more}"
    if call.memo is not None:
        return "it is looked for in the record, or an equal call that runs is waited for"
    return "it is about to be entered"


def _why_waiting(scheduler: Scheduler, nodes: tuple[Verdict, ...]) -> str:
    waiting = scheduler.state.counts().waiting
    others = f"; {waiting - 1} others wait as well" if waiting > 1 else ""
    if not nodes:
        return f"the farm has no node{others}"
    if any(verdict.open for verdict in nodes):
        return f"there is room for it: others go first, or it starts at once{others}"
    up = sum(not verdict.why.startswith("is ") for verdict in nodes)
    if not up:
        return f"no node is up{others}"
    return f"no node has room for it now{others}"


def _basis(scheduler: Scheduler, call: Call, allocation: Resources | None) -> str:
    """Return which parts of an allocation were stated, and from what the others come."""
    if allocation is None:
        return "not known yet"
    stated = [name for name in RESOURCE_NAMES if getattr(call.stated, name) is not None]
    predicted = [
        name
        for name in RESOURCE_NAMES
        if getattr(allocation, name) is not None and name not in stated
    ]
    told = []
    if stated:
        told.append(f"{', '.join(stated)} stated")
    if predicted:
        seen = scheduler.state.finished(call.category)
        source = f"from {seen} calls of its category" if seen else "with nothing known yet"
        by = call.sized_by
        if not call.attempts:
            by = call.follows(scheduler.state.predicted_by(call.category))
        if "memory" in predicted and by is not None:
            source += f", memory by its {by[0]} = {by[1]:.6g}"
        told.append(f"{', '.join(predicted)} predicted {source}")
    return "; ".join(told) or "nothing stated, nothing limited"


def describe_stated(stated: Resources) -> str:
    """Return all that is stated: ``"cores 2, memory 4.0 GiB"``; empty if nothing is."""
    return ", ".join(
        f"{name} {format_bytes(value) if name in ('memory', 'disk') else f'{value:g}'}"
        for name in RESOURCE_NAMES
        if (value := getattr(stated, name)) is not None
    )


def _describe_attempt(attempt: Attempt) -> str:
    told = f"  attempt {attempt.number} on node {attempt.node}: {attempt.outcome}"
    if attempt.usage is not None:
        used = format_bytes(attempt.usage.memory)
        told += f" after {duration(attempt.usage.wall_time)}, used {used}"
    limit = attempt.allocation.memory
    return told + (f" of {format_bytes(limit)}" if limit is not None else "")
