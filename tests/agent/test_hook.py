"""A worker's import hook over its socket; with real nodes in tests/environments/test_hook.py."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from afarm._agent.hook import Hook
from afarm._agent.inbox import Inbox
from afarm._agent.internal import Found
from afarm._wire.frames import BULK, Frame, FrameReader, pack_header
from afarm._wire.messages import Isolation, Message, Missing, Run, decode, encode
from afarm._wire.payloads import Gather
from afarm.resources import Resources

RUN = Run(40, 2, 1, False, False, Isolation.REUSE, 7, 9, Resources(), 0, b"", b"", "", b"")


class Enough(Exception):
    """Raised by a signal handler."""


class Agent:
    """The other end of a worker's socket, and a hook in a call."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.sock = ours
        self.inbox = Inbox(theirs)
        self.hook = Hook()
        self.hook.begin(RUN, self.inbox)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def asked(self) -> list[Message]:
        """Return what has been asked."""
        self.sock.setblocking(False)
        try:
            frames = FrameReader(frozenset([Missing.kind])).feed(self.sock.recv(1 << 16))
        except BlockingIOError:
            return []
        return [decode(frame) for frame in frames if isinstance(frame, Frame)]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Agent(ours, theirs)


def test_it_asks_once_for_what_is_nowhere(agent: Agent) -> None:
    agent.send(encode(Found(1, "nowhere", "")))

    assert [agent.hook.find_spec("nowhere") for _ in range(3)] == [None] * 3

    assert agent.asked() == [Missing(40, 2, 7, "nowhere")]
    assert sys.meta_path[-1] is agent.hook


@pytest.mark.parametrize("name", ["msvcrt", "json.nowhere", "x" * 501, "a\nb", "\udc80"])
def test_it_does_not_ask_for_what_no_farm_has(agent: Agent, name: str) -> None:
    assert agent.hook.find_spec(name) is None
    assert agent.asked() == []


def test_it_does_not_ask_between_calls(agent: Agent) -> None:
    agent.hook.end()

    assert agent.hook.find_spec("late") is None
    assert agent.asked() == []


def test_an_answer_that_nobody_waits_for_is_not_left_to_the_next_call(
    agent: Agent,
) -> None:
    def enough(*_: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, enough)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            agent.hook.find_spec("late")
    finally:
        signal.signal(signal.SIGALRM, before)
    agent.send(encode(Found(1, "late", "")))
    agent.hook.end()
    agent.send(pack_header(BULK, 41, 3) + b"abc")

    into = Gather([[3]])
    assert agent.inbox.gather(into)
    assert bytes(into.groups[0][0]) == b"abc"


def test_the_end_of_a_call_waits_for_its_threads_answer(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = threading.Thread(target=agent.hook.find_spec, args=["late"], daemon=True)
    asker.start()
    agent.sock.recv(1, socket.MSG_PEEK)  # it has asked
    turn = agent.inbox.turn

    def turn_once_answered() -> Any:
        agent.send(encode(Found(1, "late", "")))
        return turn()

    monkeypatch.setattr(agent.inbox, "turn", turn_once_answered)
    agent.hook.end()

    assert not agent.inbox.busy
    asker.join(20)
    assert not asker.is_alive()


@pytest.mark.parametrize("said", [b"", encode(Found(1, "late", ""))[:9]])
def test_it_waits_no_longer_than_the_agent_lives(agent: Agent, said: bytes) -> None:
    agent.send(said)
    agent.sock.shutdown(socket.SHUT_WR)
    assert agent.hook.find_spec("late") is None

    agent.sock.close()
    assert agent.hook.find_spec("later") is None
