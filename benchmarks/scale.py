"""Does a decision cost more with 10,000 nodes than with 1,000, or with 1,000,000 waiting?

The core alone, without processes or a network, in simulated time: calls of 1,000 categories
whose needs and run times have heavy tails, on nodes of four sizes. Now and then a node is lost
and comes back later. Every end of a call is answered before the next, together with what was
submitted since: a real farm handles all of one turn of its loop together, which costs less.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.farm_state import FarmState
from afarm._core.request import Request
from afarm.resources import Resources, Seconds, Usage
from afarm.sizing import AutoSizer, Unmanaged

from .figures import Figure
from .question import CannotMeasure, aim, median_of

GB = 1_000_000_000
_SIZES = ((4, 16), (8, 32), (16, 48), (32, 256))  # cores, GB
_LOST_EVERY = 2000  # decisions
_REBOOT = Seconds(60.0)
_ENOUGH = 250_000  # a run of more takes minutes, and decides as fast

RATE, TIME = "decisions/s", "time per decision"
WAITING, MAKESPAN = "memory, a waiting call", "makespan / bound"


@dataclass(frozen=True, slots=True)
class _Subject:
    """How many of what, and who sizes the calls.

    Attributes:
        nodes: Up at the beginning.
        waiting: Calls that wait, as long as there are more.
        calls: In all; what remains after `_ENOUGH` placements is left.
        learned: Whether needs are learned, and not stated.
        features: Whether each call has a feature, on which its memory depends.
    """

    nodes: int
    waiting: int
    calls: int
    learned: bool = False
    features: bool = False


SUBJECTS = {
    "1,000 nodes, 1,000 waiting": _Subject(1_000, 1_000, 100_000),
    "1,000 nodes, 100,000 waiting": _Subject(1_000, 100_000, 200_000),
    "1,000 nodes, 1,000,000 waiting": _Subject(1_000, 1_000_000, 1_000_000),
    "10,000 nodes, 1,000 waiting": _Subject(10_000, 1_000, 250_000),
    "10,000 nodes, 1,000,000 waiting": _Subject(10_000, 1_000_000, 1_000_000),
    "100 nodes, stated": _Subject(100, 10_000, 40_000),
    "100 nodes, learned": _Subject(100, 10_000, 40_000, learned=True),
    "100 nodes, learned, with features": _Subject(100, 10_000, 40_000, True, True),
}
FEW, MANY = "1,000 nodes, 1,000 waiting", "10,000 nodes, 1,000,000 waiting"
STATED = "100 nodes, stated"
LEARNED = ("100 nodes, learned", "100 nodes, learned, with features")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the size of it."""
    parser.add_argument(
        "--part", type=float, default=1.0, help="of the nodes and calls of each subject"
    )
    parser.add_argument("--categories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the sizes of farms, and the ways of sizing."""
    return list(SUBJECTS)


@dataclass(frozen=True, slots=True)
class _Category:
    request: Request
    cores: int
    memory: int
    wall_time: float


def _categories(number: int, draw: random.Random, *, learned: bool) -> list[_Category]:
    """Return kinds of calls: Pareto in memory and time, mostly of one core."""
    found = []
    for n in range(number):
        cores = draw.choice((1, 1, 1, 1, 2, 4))
        memory = int(min(64.0, 0.5 * draw.paretovariate(1.3)) * GB)
        wall_time = min(3600.0, 5 * draw.paretovariate(1.1))
        stated = Resources(cores=cores) if learned else Resources(cores=cores, memory=memory)
        request = Request(f"kind{n}", stated, isolation="fork")
        found.append(_Category(request, cores, memory, wall_time))
    return found


class _Run:
    """One workload on one farm, from the first node to the last result.

    Attributes:
        at: The simulated time.
        placements: Attempts that were started.
        batches: What the core was told, in order; the first `setting_up` made the nodes.
        waiting_bytes: What each of those took that waited at the beginning.
        core_seconds, byte_seconds, longest: Of the attempts that returned.
    """

    def __init__(self, subject: _Subject, options: argparse.Namespace) -> None:
        part: float = options.part
        self._draw = random.Random(options.seed)
        self._calls = max(10, int(subject.calls * part))
        self._most_waiting = max(5, int(subject.waiting * part))
        self._features = subject.features
        # With 100 nodes there are fewer kinds, so that something is learned of most.
        kinds = max(2, options.categories * min(1000, subject.nodes) // 1000)
        self._kinds = _categories(kinds, self._draw, learned=subject.learned)
        self._learned = subject.learned
        self._state = self._new_state()
        self.batches: list[tuple[event.Event, ...]] = []
        self.setting_up = 0
        self._capacities = {
            f"n{n}": Resources(cores=cores, memory=memory * GB)
            for n in range(max(len(_SIZES), int(subject.nodes * part)))
            for cores, memory in [_SIZES[n % len(_SIZES)]]
        }
        self._submitted = self._completed = 0
        self._drawn: dict[int, tuple[_Category, float, int]] = {}  # wall time, memory
        self._running: dict[int, do.Start] = {}
        self._up: dict[str, None] = {}
        self._to_come: list[tuple[float, int, object]] = []
        self._pushed = 0
        self._enough = int(_ENOUGH * part)
        self._lose_at = _LOST_EVERY
        self.at = self.waiting_bytes = 0.0
        self.core_seconds = self.byte_seconds = self.longest = 0.0
        self.placements = 0

    def run(self) -> None:
        """Run all of it, or as much as is enough."""
        for name in self._capacities:
            self._tell(event.AddNode(name, Seconds(0.0)))
        while self._to_come:
            self._happen()
        self.setting_up = len(self.batches)
        events = self._submissions()
        before = _resident()
        self._tell(*events)
        self.waiting_bytes = (_resident() - before) / max(1, len(events) - len(self._running))
        del events
        while not self.is_over and self.placements < self._enough:
            self._happen()
            if self.placements >= self._lose_at:
                self._lose_at += _LOST_EVERY
                self._lose()

    def time_decisions(self) -> float:
        """Return the processor time, in seconds, of the same events without what made them.

        The core decides alike each time, and a look at the clock may cost as much as a decision.
        """
        state = self._state = self._new_state()
        for batch in self.batches[: self.setting_up]:
            state.handle_all(batch)
        gc.collect()
        gc.freeze()
        began = time.process_time()
        for batch in self.batches[self.setting_up :]:
            state.handle_all(batch)
        return time.process_time() - began

    def _new_state(self) -> FarmState:
        return FarmState(AutoSizer() if self._learned else Unmanaged())

    @property
    def is_over(self) -> bool:
        """Whether every call has returned."""
        return self._completed >= self._calls

    @property
    def bound(self) -> float:
        """Seconds that no schedule can be shorter than: all work on nodes that are never lost."""
        cores = sum(capacity.cores or 0.0 for capacity in self._capacities.values())
        memory = sum(capacity.memory or 0 for capacity in self._capacities.values())
        return max(self.core_seconds / cores, self.byte_seconds / memory, self.longest)

    def _submissions(self) -> list[event.Submit]:
        """Return new calls, up to the number that is to wait."""
        waiting = self._submitted - self._completed - len(self._running)
        last = min(self._calls, self._submitted + self._most_waiting - waiting)
        found = []
        for number in range(self._submitted + 1, last + 1):
            self._submitted = number
            # A few kinds are called most of the time, as in real logs.
            kind = self._kinds[min(int(self._draw.paretovariate(0.5)), len(self._kinds)) - 1]
            wall_time = kind.wall_time * self._draw.uniform(0.5, 1.5)
            memory, request = kind.memory, kind.request
            if self._features:
                size = self._draw.lognormvariate(0.0, 1.0)
                memory = min(60 * GB, int(size * memory))
                request = request.with_features({"size": size, "seed": self._draw.random()})
            self._drawn[number] = (kind, wall_time, memory)
            found.append(event.Submit(number, request, Seconds(self.at)))
        return found

    def _happen(self) -> None:
        """Let the next thing happen."""
        self.at, _, what = heapq.heappop(self._to_come)
        if isinstance(what, do.Start):
            if self._running.get(what.invocation) is what:
                self._tell(self._end(what), *self._submissions())
            return
        if isinstance(what, event.NodeUp):
            self._up[what.node] = None
        self._tell(what)  # type: ignore[arg-type]

    def _end(self, start: do.Start) -> event.Event:
        """Return what a node tells when an attempt is over."""
        del self._running[start.invocation]
        kind, wall_time, memory = self._drawn[start.invocation]
        granted = start.allocation.memory
        usage = Usage(wall_time=wall_time, cpu_user=kind.cores * wall_time, memory=memory)
        facts = (start.invocation, start.attempt)
        if granted is not None and memory > granted:
            return event.Exhausted(*facts, "memory", usage, 0, Seconds(self.at))
        self.core_seconds += kind.cores * wall_time
        self.byte_seconds += memory * wall_time
        self.longest = max(self.longest, wall_time)
        return event.Finished(*facts, usage, 0, Seconds(self.at))

    def _lose(self) -> None:
        """Lose a node with all that it runs; it comes back in a minute."""
        name = self._draw.choice(list(self._up))
        del self._up[name]
        self._running = {n: start for n, start in self._running.items() if start.node != name}
        self._tell(event.LoseNode(name, "cut", Seconds(self.at)))

    def _tell(self, *events: event.Event) -> None:
        self.batches.append(events)
        for action in self._state.handle_all(events):
            if isinstance(action, do.Start):
                self.placements += 1
                self._running[action.invocation] = action
                self._later(self.at + self._drawn[action.invocation][1], action)
            elif isinstance(action, do.Complete):
                self._completed += 1
                del self._drawn[action.invocation]
            elif isinstance(action, do.Connect):
                at = Seconds(self.at + (_REBOOT if action.delay else 0.0))
                capacity = self._capacities[action.node]
                self._later(at, event.NodeUp(action.node, capacity, at))
            elif isinstance(action, do.WakeAt):
                self._later(action.at, event.Tick(action.at))

    def _later(self, at: float, what: object) -> None:
        self._pushed += 1
        heapq.heappush(self._to_come, (at, self._pushed, what))


def _resident() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Run one of them once."""
    if not os.path.exists("/proc/self/statm"):
        raise CannotMeasure("memory is read from /proc")
    run = _Run(SUBJECTS[subject], options)
    run.run()
    seconds = run.time_decisions()
    found = [
        (RATE, "/s", run.placements / seconds),
        (TIME, "s", seconds / run.placements),
    ]
    if SUBJECTS[subject].waiting >= 10_000:  # or most start at once
        found.append((WAITING, "B", run.waiting_bytes))
    if run.is_over:
        found.append((MAKESPAN, "", run.at / run.bound))
    return [Figure(subject, metric, unit, (value,)) for metric, unit, value in found]


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what the core should reach."""
    lines = []
    few = median_of(figures, FEW, RATE)
    if few is not None:
        lines.append(aim(f"{FEW}: {RATE}", few, 20_000))
        for subject in SUBJECTS:
            rate = median_of(figures, subject, RATE)
            if rate is not None and subject not in (FEW, STATED, *LEARNED):
                lines.append(aim(f"{subject}, times the cost", few / rate, 2.0, at_most=True))
    waiting = median_of(figures, MANY, WAITING)
    if waiting is not None:
        lines.append(aim("a waiting call", waiting, 1000, at_most=True, unit=" B"))
    stated = median_of(figures, STATED, TIME)
    for subject in LEARNED:
        each = median_of(figures, subject, TIME)
        if each is not None and stated is not None:
            learning = 1e6 * (each - stated)
            lines.append(aim(f"{subject}, sizing", learning, 50, at_most=True, unit=" us"))
    return lines
