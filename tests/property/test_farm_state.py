"""Whatever happens in whatever order, the core keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from afarm._core import events as event
from afarm._core.node import NodeState
from afarm._core.request import Request
from afarm.resources import Resources, Usage
from tests.property.farm_model import Agent, World
from tests.property.strategies import (
    NODE_NAMES,
    capacities,
    endings,
    exhausted,
    requests,
    seconds,
    usages,
)


class FarmMachine(RuleBasedStateMachine):
    """Users, nodes and time act; `World.check` is called after each thing they do."""

    mode = "hard"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.mode)
        self.requests: list[Request] = []

    @initialize(capacity=capacities, asked=st.lists(requests, min_size=1, max_size=4))
    def begin(self, capacity: Resources, asked: list[Request]) -> None:
        world = self.world
        world.tell(event.AddNode("a", world.at))
        self._connect("a", capacity)
        # Short ones, known to be short: they are sent ahead from the first step on.
        short = Request("resize")
        self.requests = [short, short, *asked]
        world.requests[1] = short
        world.tell(event.Submit(1, short, world.at))
        world.step("a")
        self._end("a", 1, Usage(wall_time=0.001, memory=20 << 20), "finish", "")
        world.receive("a", 1)

    # --- the user

    @rule(data=st.data(), count=st.sampled_from([1, 3, 10, 40]))
    def submit(self, data: st.DataObject, count: int) -> None:
        world = self.world
        request = data.draw(st.sampled_from(self.requests))
        submits = []
        for _ in range(count):
            number = len(world.requests) + 1
            world.requests[number] = request
            submits.append(event.Submit(number, request, world.at))
        world.tell(*submits)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sent = {n for agent in self.world.agents.values() for n in agent.live}
        some = sorted(sent) if sent and data.draw(st.booleans()) else list(self.world.requests)
        number = data.draw(st.sampled_from(some))
        self.world.tell(event.Cancel(number, self.world.at))

    @rule(name=st.sampled_from(NODE_NAMES))
    def add_node(self, name: str) -> None:
        if not self._known(name):
            self.world.tell(event.AddNode(name, self.world.at))

    @rule(name=st.sampled_from(NODE_NAMES), drop=st.booleans())
    def remove_node(self, name: str, drop: bool) -> None:
        if not self._known(name):
            return
        if drop:
            self.world.drop(name)
        else:
            self.world.tell(event.DrainNode(name, self.world.at))

    # --- the nodes

    @precondition(lambda self: self.world.connecting)
    @rule(capacity=capacities, fails=st.sampled_from([False, False, True]), data=st.data())
    def connect(self, capacity: Resources, fails: bool, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.connecting)))
        if fails:
            del self.world.connecting[name]
            self.world.tell(event.NodeFailed(name, "refused", self.world.at))
        else:
            self._connect(name, capacity)

    @precondition(lambda self: self.world.agents)
    @rule(memory=st.booleans(), data=st.data())
    def lose(self, memory: bool, data: st.DataObject) -> None:
        self.world.lose(self._agent(data), memory=memory)

    @precondition(lambda self: any(agent.inbox for agent in self.world.agents.values()))
    @rule(data=st.data(), count=st.sampled_from([1, 1, 5, 30]))
    def take_messages(self, data: st.DataObject, count: int) -> None:
        agents = self.world.agents
        name = data.draw(st.sampled_from(sorted(n for n in agents if agents[n].inbox)))
        for _ in range(min(count, len(agents[name].inbox))):
            self.world.step(name)

    @precondition(lambda self: any(agent.outbox for agent in self.world.agents.values()))
    @rule(data=st.data(), count=st.sampled_from([1, 1, 5, 30]))
    def send_messages(self, data: st.DataObject, count: int) -> None:
        agents = self.world.agents
        name = data.draw(st.sampled_from(sorted(n for n in agents if agents[n].outbox)))
        self.world.receive(name, count)

    @precondition(lambda self: any(agent.live for agent in self.world.agents.values()))
    @rule(data=st.data(), usage=usages, how=endings, resource=exhausted)
    def end_a_tree(self, data: st.DataObject, usage: Usage, how: str, resource: str) -> None:
        agents = self.world.agents
        name = data.draw(st.sampled_from(sorted(n for n in agents if agents[n].live)))
        number = data.draw(st.sampled_from(sorted(agents[name].live)))
        self._end(name, number, usage, how, resource)

    @precondition(lambda self: self.world.agents)
    @rule(
        data=st.data(),
        usage=usages,
        hows=st.lists(endings, min_size=1, max_size=12),
        resource=exhausted,
        together=st.integers(1, 4),
    )
    def work(
        self, data: st.DataObject, usage: Usage, hows: list[str], resource: str, together: int
    ) -> None:
        """Let one node do a good deal of work, and the farm hear of it now and then."""
        name = self._agent(data)
        for count, how in enumerate(hows, 1):
            agent = self.world.agents.get(name)
            if agent is None:  # it was draining
                return
            for _ in range(len(agent.inbox)):
                self.world.step(name)
            if agent.live:
                self._end(name, next(iter(agent.live)), usage, how, resource)
            if count % together == 0:
                self.world.at += usage.wall_time
                self.world.receive(name, together)

    @precondition(lambda self: any(agent.live for agent in self.world.agents.values()))
    @rule(
        data=st.data(),
        memory=st.integers(0, 64 << 30),
        available=st.integers(0, 64 << 30),
        wall_time=st.sampled_from([0.1, 1.0, 2.0, 30.0]),
        busy=st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    )
    def read(
        self, data: st.DataObject, memory: int, available: int, wall_time: float, busy: float
    ) -> None:
        """A node tells what one of its calls uses, and what is left."""
        world = self.world
        name = data.draw(st.sampled_from(sorted(n for n, a in world.agents.items() if a.live)))
        run = data.draw(st.sampled_from(list(world.agents[name].live.values())))
        usage = Usage(wall_time=wall_time, cpu_user=busy * wall_time, memory=memory)
        world.tell(
            event.Reading(run.invocation, run.attempt, usage, world.at),
            event.NodeLoad(name, available, -1.0, world.at),
        )

    @precondition(lambda self: self.world.stale)
    @rule()
    def hear_from_a_lost_connection(self) -> None:
        self.world.tell(replace(self.world.stale.popleft(), at=self.world.at))

    # --- time

    @rule(passed=seconds)
    def wait(self, passed: float) -> None:
        self.world.at += passed
        self.world.tell(event.Tick(self.world.at))

    @precondition(lambda self: self.world.wake is not None)
    @rule()
    def wait_until_woken(self) -> None:
        world = self.world
        assert world.wake is not None
        world.at, world.wake = max(world.at, world.wake), None
        world.tell(event.Tick(world.at))

    def teardown(self) -> None:
        self.world.settle()

    def _connect(self, name: str, capacity: Resources) -> None:
        del self.world.connecting[name]
        self.world.agents[name] = Agent(capacity)
        self.world.tell(event.NodeUp(name, capacity, self.world.at))

    def _end(self, name: str, number: int, usage: Usage, how: str, resource: str) -> None:
        at = self.world.at
        ending: event.Event = event.Finished(0, 0, usage, 0, at)
        if how in ("fail", "retry"):
            ending = event.Failed(0, 0, usage, 0, how == "retry", at)
        elif how == "exhaust":
            ending = event.Exhausted(0, 0, resource, usage, 0, at)
        elif how == "kill":
            ending = event.Killed(0, 0, usage, 0, at)
        large = how == "large"
        self.world.ran(self.world.agents[name].end(number, ending, large=large))
        self.world.check()

    def _agent(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.world.agents)))

    def _known(self, name: str) -> bool:
        return any(
            view.name == name and view.state is not NodeState.GONE
            for view in self.world.state.nodes()
        )


class ElasticMachine(FarmMachine):
    mode = "elastic"


class LiveMachine(FarmMachine):
    mode = "live"


for machine, examples in ((FarmMachine, 60), (ElasticMachine, 30), (LiveMachine, 30)):
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
test_the_core_keeps_its_promises = pytest.mark.slow(FarmMachine.TestCase)
test_it_keeps_them_with_elastic_allocations = pytest.mark.slow(ElasticMachine.TestCase)
test_it_keeps_them_with_live_packing = pytest.mark.slow(LiveMachine.TestCase)
