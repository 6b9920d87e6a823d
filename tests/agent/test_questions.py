"""What workers miss, on its way through the agent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from afarm._agent.internal import Found
from afarm._agent.questions import Questions
from afarm._wire.frames import FrameReader
from afarm._wire.messages import Message, Missing, Module, Notice, decode

EVERYTHING = frozenset(range(256))
HOME = "/cache/environments/abc"
PYTHON = f"{HOME}/bin/python"


class Sink:
    """Takes encoded messages where a channel or an outbox would."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, data: bytes) -> None:
        self.sent += [decode(each) for each in FrameReader(EVERYTHING).feed(data)]  # type: ignore[arg-type]


class Node:
    """An agent of which only this is there."""

    def __init__(self) -> None:
        self.spread: list[tuple[int, Found]] = []
        self.farm = Sink()
        loop: Any = SimpleNamespace(touch=lambda channel: None)
        pool: Any = SimpleNamespace(spread=lambda *told: self.spread.append(told))
        outbox: Any = self.farm
        self.questions = Questions(loop, outbox, lambda: pool)

    def worker(self, number: int, environment: int = 7) -> Any:
        key = SimpleNamespace(environment=environment)
        slot = SimpleNamespace(template=SimpleNamespace(key=key))
        return SimpleNamespace(number=number, slot=slot, channel=Sink())


def missing(name: str) -> Missing:
    return Missing(40, 1, 7, name)


def test_the_farm_is_asked_once_and_everybody_is_told() -> None:
    node = Node()
    first, second, third = (node.worker(number) for number in (1, 2, 3))

    node.questions.ask(first, missing("late"))
    node.questions.ask(second, missing("late"))
    node.questions.answer(Module(7, 0, "late"))
    node.questions.ask(third, missing("late"))

    assert node.farm.sent == [missing("late")]
    for worker in (first, second, third):
        assert worker.channel.sent == [Found(worker.number, "late", "")]
    assert node.spread == [(7, Found(0, "late", ""))]


def test_environments_do_not_share_answers() -> None:
    node = Node()
    node.questions.ask(node.worker(1), missing("late"))
    node.questions.answer(Module(7, 0, "late"))

    node.questions.ask(node.worker(2, environment=8), missing("late"))

    assert node.farm.sent[1:] == [Missing(40, 1, 8, "late")]


def test_a_worker_waits_until_the_environment_is_there() -> None:
    node = Node()
    first, second = node.worker(1), node.worker(2)
    node.questions.ask(first, missing("late"))
    node.questions.ask(second, missing("later"))

    node.questions.answer(Module(7, 20, "late"))
    assert node.questions.expects(20)
    assert not node.questions.expects(7)
    assert first.channel.sent == []
    node.questions.decided(20, PYTHON, "")
    node.questions.answer(Module(7, 20, "later"))  # which had come along

    assert first.channel.sent == [Found(1, "late", HOME)]
    assert second.channel.sent == [Found(2, "later", HOME)]


def test_what_the_node_cannot_have_is_missing_and_people_are_told_why() -> None:
    node = Node()
    first, second = node.worker(1), node.worker(2)
    node.questions.ask(first, missing("late"))
    node.questions.answer(Module(7, 20, "late"))

    node.questions.decided(20, "", "no room in /cache")
    node.questions.ask(second, missing("later"))
    node.questions.answer(Module(7, 20, "later"))

    assert first.channel.sent == [Found(1, "late", "")]
    assert second.channel.sent == [Found(2, "later", "")]
    assert Notice(30, "late cannot be had: no room in /cache") in node.farm.sent
