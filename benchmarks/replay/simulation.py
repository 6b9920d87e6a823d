"""A farm in simulated time: the real `FarmState`, and nodes that are only arithmetic."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.actions import Completion
from afarm._core.farm_state import FarmState
from afarm._core.request import Request
from afarm.resources import Resources, Seconds, Usage
from afarm.sizing import Sizer

from .trace import Call

# A node that ran out of memory comes back after so long (s), empty.
_REBOOT = 60.0

# Readings of a call that runs, at each of these fractions of it, and where it outgrows what
# it was given.
_READINGS = tuple(0.1 * n for n in range(1, 10))

# Seconds after which a replay is given up, as a multiple of the work there is.
_GIVE_UP = 50.0


@dataclass(slots=True)
class Outcome:
    """What a replay came to.

    Attributes:
        makespan: Seconds from the submission of all calls to the end of the last; infinite
            where not all ended.
        used: Bytes x seconds that calls used at most, of attempts that returned.
        held: Bytes x seconds that were set aside for them.
        wasted_by_failures: Bytes x seconds that attempts held which did not return.
        retries: Attempts that exhausted their allocation.
        evictions: Attempts that were stopped for their node's sake.
        crashes: Nodes that ran out of memory.
        deciding: Seconds of processor time that all decisions took, sizing included.
    """

    makespan: float = math.inf
    used: float = 0.0
    held: float = 0.0
    wasted_by_failures: float = 0.0
    retries: int = 0
    evictions: int = 0
    crashes: int = 0
    deciding: float = 0.0

    @property
    def efficiency(self) -> float:
        """What was used, of what was set aside; 0 where nothing was."""
        aside = self.held + self.wasted_by_failures
        return self.used / aside if aside else 0.0


@dataclass(slots=True, eq=False)
class _Attempt:
    """A call that runs.

    How far it is, is a share of its work. While the calls of a node want more cores than it
    has, all of them are slower, each by the same factor.
    """

    number: int
    call: Call
    attempt: int
    node: str
    allocation: Resources
    group: int
    started: float
    done: float = 0.0  # of its work
    at: float = 0.0  # when that was so
    points: list[tuple[float, str, float]] = field(default_factory=list)  # what comes, a heap
    version: int = 0  # of what is planned for it
    held: float = 0.0  # bytes x seconds so far
    since: float = 0.0  # when the allocation was last changed
    memory: float = 0.0  # what it uses now
    told: float = 0.0  # what the farm was last told
    late: bool = False  # its eviction comes too late
    over: bool = False

    def settle(self, at: float) -> None:
        """Count what it has held until now."""
        self.held += (self.allocation.memory or 0) * (at - self.since)
        self.since = at

    def usage(self, at: float) -> Usage:
        """Return what it has used so far."""
        return Usage(
            wall_time=at - self.started,
            cpu_user=self.call.cores * self.call.wall_time * self.done,
            memory=math.ceil(self.memory),
            memory_low=math.ceil(self.memory),
            memory_resident=math.ceil(self.memory),
        )


@dataclass(slots=True)
class _Node:
    capacity: Resources
    running: dict[int, _Attempt] = field(default_factory=dict)

    @property
    def memory(self) -> float:
        """Bytes in use."""
        return sum(attempt.memory for attempt in self.running.values())

    @property
    def speed(self) -> float:
        """How fast its calls go, of how fast they would go alone: cores are shared."""
        busy = sum(attempt.call.cores for attempt in self.running.values())
        return min(1.0, (self.capacity.cores or math.inf) / busy) if busy else 1.0

    def advance(self, at: float) -> None:
        """Let every call have done what it has done by now."""
        speed = self.speed
        for attempt in self.running.values():
            attempt.done += (at - attempt.at) * speed / attempt.call.wall_time
            attempt.at = at


class Simulation:
    """One workload on one farm.

    Args:
        calls: The workload; all are submitted at the beginning.
        nodes: The capacity of each node.
        state: The farm's decisions.
        limited: Whether a call that outgrows its allocation is stopped. Else only the node
            limits it, and what runs there is lost when it runs out.
        late: Of so many evictions one comes too late: the call dies by itself. 0: none.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        nodes: Sequence[Resources],
        state: FarmState,
        *,
        limited: bool = True,
        late: int = 0,
    ) -> None:
        self._calls = calls
        self._state = state
        self._soft = getattr(state, "mode", "hard") != "hard"
        self._limited = limited
        self._late = late
        self._nodes = {f"n{number}": _Node(capacity) for number, capacity in enumerate(nodes)}
        self._queue: list[tuple[float, int, object]] = []
        self._count = itertools.count()
        self._at = 0.0
        self._running: dict[int, _Attempt] = {}
        self._queued: dict[int, list[do.Start]] = {}
        self._left = len(calls)
        self._evicted = 0
        self.outcome = Outcome()
        self.failed: list[int] = []

    def run(self) -> Outcome:
        """Replay all of it."""
        requests: dict[tuple[str, tuple[tuple[str, float], ...]], Request] = {}
        for name in self._nodes:
            self._tell(event.AddNode(name, Seconds(0.0)))
        submitted = []
        for number, call in enumerate(self._calls, 1):
            key = (call.category, tuple(call.features.items()))
            request = requests.get(key)
            if request is None:
                request = requests[key] = Request(call.category, features=call.features)
            submitted.append(event.Submit(number, request, Seconds(0.0)))
        self._tell(*submitted)
        longest = max(call.wall_time for call in self._calls)
        give_up = _GIVE_UP * (sum(call.wall_time for call in self._calls) + longest)
        while self._left and self._queue and self._at < give_up:
            self._at, _, what = heapq.heappop(self._queue)
            self._happen(what)
        if not self._left:
            self.outcome.makespan = self._at
        return self.outcome

    def _later(self, at: float, what: object) -> None:
        heapq.heappush(self._queue, (at, next(self._count), what))

    def _tell(self, *events: event.Event) -> None:
        began = time.process_time()
        actions = self._state.handle_all(events)
        self.outcome.deciding += time.process_time() - began
        for action in actions:
            self._perform(action)

    # --- what the farm decides

    def _perform(self, action: do.Action) -> None:
        if isinstance(action, do.Start):
            if action.queued:
                self._queued.setdefault(action.group, []).append(action)
            else:
                self._start(action)
        elif isinstance(action, do.Kill):
            self._kill(action)
        elif isinstance(action, do.Recall):
            self._recall(action)
        elif isinstance(action, do.Connect):
            delay = 0.0 if self._at == 0.0 else _REBOOT
            node = action.node
            capacity = self._nodes[node].capacity
            self._later(self._at + delay, event.NodeUp(node, capacity, Seconds(self._at + delay)))
        elif isinstance(action, do.Complete):
            self._left -= 1
            if action.outcome is not Completion.RETURNED:
                self.failed.append(action.invocation)
        elif isinstance(action, do.WakeAt):
            self._later(action.at, event.Tick(action.at))
        elif type(action).__name__ == "Resize":
            self._resize(action)

    def _start(self, action: do.Start) -> None:
        call = self._calls[action.invocation - 1]
        attempt = _Attempt(
            action.invocation, call, action.attempt, action.node, action.allocation, action.group,
            self._at, at=self._at, since=self._at, points=[(1.0, "end", 0.0)],
        )  # fmt: skip
        if self._soft or not self._limited:
            attempt.points = [*((each, "look", 0.0) for each in _READINGS), *attempt.points]
        node = self._nodes[action.node]
        node.advance(self._at)
        self._running[action.invocation] = attempt
        node.running[action.invocation] = attempt
        self._watch_growth(attempt)
        self._plan(node)

    def _plan(self, node: _Node) -> None:
        """Plan what comes next for each call of a node, at the speed that they have now."""
        speed = node.speed
        for attempt in node.running.values():
            self._plan_one(attempt, speed)

    def _plan_one(self, attempt: _Attempt, speed: float) -> None:
        attempt.version += 1
        left = max(0.0, attempt.points[0][0] - attempt.done)
        at = self._at + left * attempt.call.wall_time / speed
        self._later(at, (attempt, attempt.version))

    def _watch_growth(self, attempt: _Attempt) -> None:
        """See to it that something happens when a call outgrows what it was given."""
        memory = attempt.allocation.memory
        if memory is None or not self._limited:
            return
        fraction = attempt.call.reaches(memory)
        if fraction < math.inf:
            heapq.heappush(attempt.points, (fraction, "outgrow", memory))

    def _resize(self, action: do.Action) -> None:
        attempt = self._running.get(action.invocation)  # type: ignore[union-attr]
        if attempt is None:
            return
        attempt.settle(self._at)
        attempt.allocation = action.allocation  # type: ignore[union-attr]
        self._watch_growth(attempt)
        node = self._nodes[attempt.node]
        node.advance(self._at)
        self._plan_one(attempt, node.speed)

    def _kill(self, action: do.Kill) -> None:
        attempt = self._running.get(action.invocation)
        if attempt is None or attempt.attempt != action.attempt:
            for waiting in self._queued.values():
                for start in list(waiting):
                    if start.invocation == action.invocation:
                        waiting.remove(start)
                        self._later(
                            self._at,
                            event.Returned(start.invocation, start.attempt, Seconds(self._at)),
                        )
            return
        self.outcome.evictions += action.evicted
        self._evicted += action.evicted
        if action.evicted and self._late and self._evicted % self._late == 0:
            # The kernel was faster: the agent tells of a call that ran out of memory.
            self._end(attempt, event.Exhausted(0, 0, "memory", Usage(), 0, Seconds(self._at)))
            return
        self._end(attempt, event.Killed(0, 0, Usage(), 0, Seconds(self._at)))

    def _recall(self, action: do.Recall) -> None:
        for waiting in self._queued.values():
            for start in list(waiting):
                if start.invocation == action.invocation:
                    waiting.remove(start)
                    back = event.Returned(start.invocation, start.attempt, Seconds(self._at))
                    self._later(self._at, back)

    # --- what happens on the nodes

    def _happen(self, what: object) -> None:
        if not isinstance(what, tuple):
            self._tell(what)  # type: ignore[arg-type]
            return
        attempt, version = what
        if attempt.over or attempt.version != version:
            return
        node = self._nodes[attempt.node]
        node.advance(self._at)
        fraction, why, limit = heapq.heappop(attempt.points)
        attempt.done = max(attempt.done, fraction)
        if why == "end":
            attempt.memory = float(attempt.call.memory)
            self._end(attempt, event.Finished(0, 0, Usage(), 0, Seconds(self._at)))
            return
        self._look(attempt, why, limit)
        if not attempt.over:
            self._plan_one(attempt, node.speed)

    def _look(self, attempt: _Attempt, why: str, limit: float) -> None:
        attempt.memory = max(attempt.memory, attempt.call.uses(min(1.0, attempt.done)))
        if why == "outgrow":
            if limit != attempt.allocation.memory:
                return  # it has another allocation by now
            attempt.memory = max(attempt.memory, limit + 1)
            if not self._soft:
                self.outcome.retries += 1
                self._end(attempt, event.Exhausted(0, 0, "memory", Usage(), 0, Seconds(self._at)))
                return
        node = self._nodes[attempt.node]
        # Memory grows steadily, and readings come every few milliseconds where it grows fast: the
        # farm hears of it before the node is full.
        before = attempt.allocation
        if self._soft:
            self._read(attempt)
        if node.memory > (node.capacity.memory or math.inf):
            self._crash(attempt.node)
            return
        unheard = not attempt.over and attempt.allocation is before
        if self._soft and why == "outgrow" and unheard:
            self.outcome.retries += 1  # nobody gave it more, and nobody made room
            self._end(attempt, event.Exhausted(0, 0, "memory", Usage(), 0, Seconds(self._at)))

    def _read(self, attempt: _Attempt) -> None:
        """Tell the farm what a call uses."""
        made = event.Reading(
            attempt.number, attempt.attempt, attempt.usage(self._at), Seconds(self._at)
        )
        self._tell(made)

    def _end(self, attempt: _Attempt, ending: event.Event) -> None:
        """End an attempt, and let the next one of its group have its lane."""
        attempt.over = True
        attempt.settle(self._at)
        node = self._nodes[attempt.node]
        node.advance(self._at)
        del self._running[attempt.number]
        node.running.pop(attempt.number, None)
        self._plan(node)
        usage = attempt.usage(self._at)
        if isinstance(ending, event.Finished):
            self.outcome.used += usage.memory * (self._at - attempt.started)
            self.outcome.held += attempt.held
        else:
            self.outcome.wasted_by_failures += attempt.held
        waiting = self._queued.get(attempt.group)
        follower = waiting.pop(0) if waiting else None
        following = follower.invocation if follower is not None else 0
        facts = (attempt.number, attempt.attempt)
        now = Seconds(self._at)
        if isinstance(ending, event.Finished):
            self._tell(event.Finished(*facts, usage, following, now))
        elif isinstance(ending, event.Exhausted):
            self._tell(event.Exhausted(*facts, ending.resource, usage, following, now))
        else:
            self._tell(event.Killed(*facts, usage, following, now))
        if follower is not None:
            self._start(
                do.Start(
                    follower.invocation, follower.attempt, follower.node, attempt.allocation,
                    follower.group, False, follower.reuse,
                )
            )  # fmt: skip

    def _crash(self, name: str) -> None:
        """A node has run out of memory: all that ran there is lost."""
        self.outcome.crashes += 1
        node = self._nodes[name]
        for attempt in list(node.running.values()):
            attempt.over = True
            attempt.settle(self._at)
            self.outcome.wasted_by_failures += attempt.held
            del self._running[attempt.number]
        node.running.clear()
        self._tell(event.LoseNode(name, "out of memory", Seconds(self._at), memory=True))


def replay(
    calls: Sequence[Call],
    nodes: Sequence[Resources],
    sizer: Sizer,
    *,
    mode: str = "hard",
    limited: bool = True,
    late: int = 0,
) -> Outcome:
    """Replay a workload and return what came of it.

    Args:
        calls: The workload.
        nodes: The farm.
        sizer: Chooses allocations.
        mode: How the farm packs: ``"hard"``, ``"elastic"`` or ``"live"``.
        limited: Whether calls are held to their allocations.
        late: Of so many evictions one comes too late.
    """
    options: Mapping[str, str] = {} if mode == "hard" else {"mode": mode}
    state = FarmState(sizer, **options)
    return Simulation(calls, nodes, state, limited=limited, late=late).run()
