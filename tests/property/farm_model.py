"""A model of the world around `FarmState`: nodes with agents, and messages on their way.

It knows what the core cannot see: which process trees live. Messages of one connection
keep their order; when a connection is lost, those on their way to the farm may still
arrive, late.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.farm_state import FarmState
from afarm._core.invocation import State
from afarm._core.node import NodeState
from afarm._core.request import Request
from afarm._core.sizers import AutoSizer
from afarm.resources import RESOURCE_NAMES, Resources, Usage

ENDED = (event.Finished, event.Failed, event.Exhausted, event.Killed)


@dataclass
class Agent:
    """What runs on one node during one connection, as ARCHITECTURE.md describes it."""

    capacity: Resources
    inbox: deque[do.Start | do.Kill | do.Recall | do.Resize] = field(default_factory=deque)
    outbox: deque[event.Event] = field(default_factory=deque)
    live: dict[int, do.Start] = field(default_factory=dict)
    queued: dict[int, deque[do.Start]] = field(default_factory=dict)

    def step(self, at: float) -> list[do.Start]:
        """Take one message; return what it started."""
        message = self.inbox.popleft()
        if isinstance(message, do.Start):
            if not message.queued:
                self.live[message.invocation] = message
                return [message]
            if any(run.group == message.group for run in self.live.values()):
                self.queued.setdefault(message.group, deque()).append(message)
            else:
                self.outbox.append(event.Returned(message.invocation, message.attempt, at))
            return []
        if isinstance(message, do.Resize):
            run = self.live.get(message.invocation)
            if run is not None and run.attempt == message.attempt:
                self.live[message.invocation] = replace(run, allocation=message.allocation)
            return []
        if isinstance(message, do.Kill) and self._is_live(message):
            return self.end(message.invocation, event.Killed(0, 0, Usage(), 0, at))
        for waiting in self.queued.values():
            for run in list(waiting):
                if (run.invocation, run.attempt) == (message.invocation, message.attempt):
                    waiting.remove(run)
                    self.outbox.append(event.Returned(run.invocation, run.attempt, at))
        return []

    def end(self, invocation: int, ending: event.Event, *, large: bool = False) -> list[do.Start]:
        """End a tree; return what took its place. A ``large`` result is told of in two steps."""
        assert isinstance(ending, ENDED)
        run = self.live.pop(invocation)
        waiting = self.queued.get(run.group)
        started = [replace(waiting.popleft(), allocation=run.allocation)] if waiting else []
        successor = started[0].invocation if started else 0
        if large and successor:
            self.outbox.append(event.HandedOn(run.invocation, run.attempt, successor, ending.at))
            successor = 0
        ended = replace(ending, invocation=run.invocation, attempt=run.attempt, next=successor)
        self.outbox.append(ended)
        for after in started:
            self.live[after.invocation] = after
        if not any(other.group == run.group for other in self.live.values()):
            for left in self.queued.pop(run.group, ()):
                self.outbox.append(event.Returned(left.invocation, left.attempt, ending.at))
        return started

    def _is_live(self, message: do.Kill | do.Recall) -> bool:
        run = self.live.get(message.invocation)
        return run is not None and run.attempt == message.attempt


class World:
    """The core and everything around it."""

    def __init__(self, mode: str = "hard") -> None:
        self.mode = mode
        self.state = FarmState(AutoSizer(), mode)
        self.at = 0.0
        self.agents: dict[str, Agent] = {}
        self.connecting: dict[str, float] = {}  # to be tried, and after how long
        self.stale: deque[event.Event] = deque()
        self.requests: dict[int, Request] = {}
        self.outcomes: dict[int, do.Completion] = {}
        self.runs: Counter[int] = Counter()  # how often it was started for real
        self.excused: Counter[int] = Counter()  # runs that a removed node cut short
        self.wake: float | None = None

    # --- towards the core

    def tell(self, *events: event.Event) -> None:
        """Hand events to the core, do what it answers, and check everything."""
        for action in self.state.handle_all(events):
            self._perform(action)
        self.check()

    def _perform(self, action: do.Action) -> None:
        if isinstance(action, do.Start):
            self._send(action)
        elif isinstance(action, do.Kill | do.Recall | do.Resize):
            if isinstance(action, do.Resize):
                stated = self.requests[action.invocation].stated
                assert stated.memory is None, "what was stated was changed"
            if isinstance(action, do.Kill) and action.evicted:
                assert self.requests[action.invocation].retries > 0, "it may run only once"
                self.excused[action.invocation] += 1
            self.agents[action.node].inbox.append(action)
        elif isinstance(action, do.Connect):
            assert action.node not in self.connecting, "it is being connected already"
            assert action.node not in self.agents, "it is up"
            self.connecting[action.node] = action.delay
        elif isinstance(action, do.DrainedNode):
            agent = self.agents.pop(action.node, None)
            if agent is not None:
                self.stale.extend(agent.outbox)
            self.connecting.pop(action.node, None)
        elif isinstance(action, do.Complete):
            assert action.invocation not in self.outcomes, "it was completed twice"
            self.outcomes[action.invocation] = action.outcome
            holders = [a for a in self.agents.values() if action.invocation in a.live]
            assert not holders, "it is complete for its caller, and its tree lives"
        else:
            assert action.at >= self.at
            self.wake = action.at

    def _send(self, start: do.Start) -> None:
        request = self.requests[start.invocation]
        assert start.invocation not in self.outcomes, "it is over"
        assert self.state.node_view(start.node).state is NodeState.UP
        assert request.node in (None, start.node)
        for name in RESOURCE_NAMES:
            wanted = getattr(request.stated, name)
            assert wanted is None or getattr(start.allocation, name) == wanted
        if start.queued:
            assert request.retries > 0, "what may run at most once was sent ahead"
        self.agents[start.node].inbox.append(start)

    # --- what happens

    def ran(self, started: list[do.Start]) -> None:
        """Count what started for real."""
        self.runs.update(run.invocation for run in started)

    def step(self, name: str) -> None:
        """Let one agent take one message."""
        self.ran(self.agents[name].step(self.at))
        self.check()

    def receive(self, name: str, most: int) -> None:
        """Let the farm take some of what one agent has sent."""
        outbox = self.agents[name].outbox
        arrived = [outbox.popleft() for _ in range(min(most, len(outbox)))]
        self.tell(*[replace(message, at=self.at) for message in arrived])

    def lose(self, name: str, *, memory: bool) -> None:
        """Cut a connection."""
        unheard = self._there(name, State.QUEUED, State.RECALLING)
        # To the farm they have not started, and cost no retry: it has not heard of it.
        self.excused.update(number for number in unheard if self._ran_there(name, number))
        self.stale.extend(self.agents.pop(name).outbox)
        self.tell(event.LoseNode(name, "cut", self.at, memory))

    def drop(self, name: str) -> None:
        """Remove a node at once."""
        self.excused.update(self._there(name, *State))
        self.tell(event.DropNode(name, self.at))

    def _there(self, name: str, *states: State) -> list[int]:
        """Return who is on a node as the farm sees it, in one of these states."""
        open_ones = self.requests.keys() - self.outcomes.keys()
        views = {number: self.state.invocation_view(number) for number in open_ones}
        return [n for n, view in views.items() if view.node == name and view.state in states]

    def _ran_there(self, name: str, number: int) -> bool:
        agent = self.agents[name]
        ended = {m.invocation for m in agent.outbox if isinstance(m, ENDED)}
        return number in agent.live or number in ended

    # --- what always holds

    def check(self) -> None:
        """Check the invariants."""
        for name, agent in self.agents.items():
            self._check_room(name, agent)
        for number, runs in self.runs.items():
            request = self.requests[number]
            assert runs <= 1 + request.retries + self.excused[number], "too many attempts"
            if request.retries == 0:
                assert runs <= 1
        for number in self.outcomes:
            assert number not in self.state._invocations, "it is over and still kept"
        counts = self.state.counts()
        assert counts.waiting + counts.running + counts.queued == len(self.requests) - len(
            self.outcomes
        )
        self._check_work_is_conserved()

    def _check_room(self, name: str, agent: Agent) -> None:
        view = self.state.node_view(name)
        for resource in ("cores", "memory", "disk", "gpus"):
            if resource == "memory" and self.mode == "live":
                continue  # charged by what is used, and made room for when that is too much
            alive = sum(getattr(run.allocation, resource) or 0 for run in agent.live.values())
            taken = getattr(view.in_use, resource)
            have = getattr(agent.capacity, resource)
            if have is not None:
                assert taken <= have + 1e-6, f"{name}: {resource} over capacity"
                if resource == "memory" and self.mode == "elastic":
                    continue  # a Resize may be on its way
                if resource == "cores" and self.mode != "hard":
                    continue  # charged by what they keep busy
                assert alive <= taken + 1e-4, f"{name}: {resource} freed while a tree lives"

    def _check_work_is_conserved(self) -> None:
        """Nothing that fits waits, except behind a reservation."""
        views = [view for view in self.state.nodes() if view.state is NodeState.UP]
        seen = set()
        for number, request in self.requests.items():
            if number in self.outcomes:
                continue
            waiting = self.state.invocation_view(number)
            if waiting.state is not State.WAITING or waiting.allocation is None:
                continue
            if (waiting.allocation, request.node) in seen:
                continue
            seen.add((waiting.allocation, request.node))
            for view in views:
                if self.mode != "live" and request.node in (None, view.name) and not view.reserved:
                    assert not _fits(waiting.allocation, view.capacity, view.in_use), (
                        f"{number} waits, though it fits on {view.name}"
                    )

    # --- the end

    def settle(self) -> None:
        """Let everything come to its end: no more losses, all nodes come up, all calls return."""
        huge = Resources(cores=64, memory=1 << 40, disk=1 << 40, gpus=8)
        self.tell(event.AddNode("last", self.at))
        for _ in range(10_000):
            self.at += 15.0
            if self.connecting:
                name, _ = self.connecting.popitem()
                self.agents[name] = Agent(huge)
                self.tell(event.NodeUp(name, huge, self.at))
            for agent in self.agents.values():
                while agent.inbox:
                    self.ran(agent.step(self.at))
                for number in list(agent.live):
                    usage = Usage(wall_time=1.0)
                    self.ran(agent.end(number, event.Finished(0, 0, usage, 0, self.at)))
            for name in list(self.agents):
                if name in self.agents:
                    self.receive(name, 10_000)
            self.tell(event.Tick(self.at))
            if self.state.is_empty and not self.connecting:
                break
        assert self.state.is_empty, f"{self.state} does not come to an end"
        assert self.state._dispatcher.is_empty
        assert set(self.outcomes) == set(self.requests)
        for view in self.state.nodes():
            assert view.in_use == Resources(cores=0, memory=0, disk=0, gpus=0)
            assert not view.running
            assert not view.queued
            assert not view.reserved


def _fits(wanted: Resources, capacity: Resources | None, used: Resources) -> bool:
    assert capacity is not None
    for resource in ("cores", "memory", "disk", "gpus"):
        have = getattr(capacity, resource)
        want = getattr(wanted, resource) or 0
        if have is not None and want > have - getattr(used, resource) + 1e-9:
            return False
    return True
