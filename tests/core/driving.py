"""A farm's core with what tests of it need: a clock to turn, and short ways to say things."""

from __future__ import annotations

from collections.abc import Iterable

from afarm._core import actions as do
from afarm._core import events as event
from afarm._core.actions import Action, Complete, Completion, Start
from afarm._core.farm_state import FarmState
from afarm._core.request import Request
from afarm._core.sizers import AutoSizer, Sizer
from afarm.resources import Resources, Usage

MIB = 1 << 20
GIB = 1 << 30

TWO_CORES = Resources(cores=2, memory=8 * GIB, disk=100 * GIB, gpus=0)
# Requests in most tests state everything, so that nothing depends on the sizer.
ONE_CORE = Resources(cores=1, memory=GIB)


class Driver:
    """Submits and ends invocations, and remembers where each was started."""

    def __init__(
        self,
        *nodes: str,
        capacity: Resources = TWO_CORES,
        sizer: Sizer | None = None,
        mode: str = "hard",
    ):
        self.state = FarmState(sizer or AutoSizer(), mode)
        self.at = 0.0
        self.starts: dict[int, Start] = {}
        self.completed: dict[int, Complete] = {}
        self._number = 0
        for node in nodes:
            self.add(node, capacity)

    def tell(self, *events: event.Event) -> list[Action]:
        """Hand over events; remember what was started and completed."""
        actions = self.state.handle_all(events)
        for action in actions:
            if isinstance(action, Start):
                self.starts[action.invocation] = action
            elif isinstance(action, Complete):
                assert action.invocation not in self.completed
                self.completed[action.invocation] = action
        return actions

    def add(self, node: str, capacity: Resources = TWO_CORES) -> list[Action]:
        """Add a node and let it come up."""
        return [
            *self.tell(event.AddNode(node, self.at)),
            *self.tell(event.NodeUp(node, capacity, self.at)),
        ]

    def submit(self, request: Request, count: int = 1) -> list[int]:
        """Submit some; return their numbers."""
        first = self._number + 1
        self._number += count
        numbers = list(range(first, first + count))
        self.tell(*(event.Submit(number, request, self.at) for number in numbers))
        return numbers

    def call(self, stated: Resources = ONE_CORE, category: str = "f", **more: object) -> int:
        """Submit one; return its number."""
        request = Request(category, stated, **more)  # type: ignore[arg-type]
        return self.submit(request)[0]

    def finish(
        self, number: int, *, wall: float = 1.0, cpu: float = 0.0, memory: int = 100 * MIB,
        next: int = 0,
    ) -> list[Action]:  # fmt: skip
        """Let one return; the clock is left as it is."""
        usage = Usage(wall_time=wall, cpu_user=cpu, memory=memory)
        return self.tell(event.Finished(number, self.attempt(number), usage, next, self.at))

    def fail(self, number: int, *, retry: bool = False) -> list[Action]:
        """Let one raise."""
        return self.tell(event.Failed(number, self.attempt(number), Usage(), 0, retry, self.at))

    def exhaust(self, number: int, resource: str = "memory", used: int = GIB) -> list[Action]:
        """Let one go over its allocation."""
        usage = Usage(wall_time=1.0, memory=used)
        return self.tell(event.Exhausted(number, self.attempt(number), resource, usage, 0, self.at))

    def killed(self, number: int, used: int = 0) -> list[Action]:
        """Let the agent confirm a kill."""
        usage = Usage(memory=used)
        return self.tell(event.Killed(number, self.attempt(number), usage, 0, self.at))

    def read(self, number: int, used: int) -> list[Action]:
        """Let the agent tell what one uses."""
        usage = Usage(wall_time=1.0, memory=used)
        return self.tell(event.Reading(number, self.attempt(number), usage, self.at))

    def returned(self, number: int) -> list[Action]:
        """Let the agent give one back."""
        return self.tell(event.Returned(number, self.attempt(number), self.at))

    def lose(self, node: str, *, memory: bool = False) -> list[Action]:
        """Cut a node's connection."""
        return self.tell(event.LoseNode(node, "cut", self.at, memory))

    def tick(self, passed: float) -> list[Action]:
        """Let time pass."""
        self.at += passed
        return self.tell(event.Tick(self.at))

    def learn(self, category: str = "f", *, wall: float, times: int = 1, **more: object) -> None:
        """Let some calls of a category return, so that it is known how long they take."""
        for _ in range(times):
            number = self.call(category=category, **more)
            self.finish(number, wall=wall)

    def attempt(self, number: int) -> int:
        """Return the present attempt."""
        return self.state.invocation_view(number).attempt

    def node_of(self, number: int) -> str | None:
        """Return where an invocation is."""
        return self.state.invocation_view(number).node

    def outcome(self, number: int) -> Completion | None:
        """Return how it ended, or ``None`` while it has not."""
        done = self.completed.get(number)
        return None if done is None else done.outcome


def started(actions: Iterable[Action], *, queued: bool = False) -> list[int]:
    """Return which were started, or sent ahead."""
    return [a.invocation for a in actions if isinstance(a, Start) and a.queued is queued]


def of(actions: Iterable[Action], kind: type[do.Action]) -> list[Action]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]
