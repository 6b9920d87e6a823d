"""Fakes for tests of programs that use a farm: nothing runs, and nothing has to be waited for.

`StillNode` is a node whose agent lives in this process: it answers each call as the test says,
with a result, an error or an exhausted limit, and with any usage. It can hold its answers back,
and be lost. `TurnedLoop` is an event loop whose clock can be turned. `MemoryNode` joins a farm
and an agent of one's own in memory.

    def answer(call: Received) -> object:
        args, kwargs = call.arguments()
        return Answer(args[0] * 2, usage=Usage(wall_time=60, memory=3 << 30))

    async with afarm.Farm([StillNode(answer, cores=8)], progress=False) as farm:
        assert await farm.submit(anything, 21) == 42
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._agent import exceptions
from ._wire import messages as wire
from ._wire.frames import Fragment, FrameReader
from ._wire.payloads import Gather, unpack_layout
from .errors import NodeError
from .payload import load
from .resources import RESOURCE_NAMES, Resources, Usage, parse_bytes
from .transport.base import Receiver
from .transport.memory import MemoryConnection, MemoryNode

__all__ = ["Answer", "MemoryConnection", "MemoryNode", "Received", "StillNode", "TurnedLoop"]

# A result of a still node travels inside its message.
_LARGEST_RESULT = 900_000


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ends on a `StillNode`.

    Attributes:
        result: What it returns.
        error: What it raises instead.
        exhausted: The resource it outgrew instead: ``"memory"``.
        usage: What it used.
    """

    result: object = None
    error: BaseException | None = None
    exhausted: str = ""
    usage: Usage = field(default_factory=lambda: Usage(wall_time=0.001, memory=1 << 20))

    def __post_init__(self) -> None:
        if self.exhausted and self.exhausted not in RESOURCE_NAMES:
            raise ValueError(f"{self.exhausted!r} is no resource: {', '.join(RESOURCE_NAMES)}")


@dataclass(slots=True, eq=False)
class Received:
    """A call as it arrived at a `StillNode`.

    Attributes:
        category: Whose kind it is.
        attempt: How often the farm has given it to a node, this time included.
        limits: What it may use.
    """

    category: str
    attempt: int
    limits: Resources
    _run: wire.Run
    _payload: Gather

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return its arguments.

        Raises:
            RuntimeError: If results of other calls, or objects that were put, are among them.
        """
        args, kwargs = load(self._payload.groups[0])
        return args, kwargs


class StillNode:
    """A node that runs nothing.

    Args:
        answer: Says how a call ends: with an `Answer`, or what it returns. By default with
            ``None``.
        name: What the farm calls it.
        cores: How many it has.
        memory: How much it has.

    Attributes:
        received: All calls that arrived, in order.
    """

    scratch = ""
    in_place = True

    def __init__(
        self,
        answer: Callable[[Received], object] | None = None,
        *,
        name: str = "still",
        cores: float = 4,
        memory: int | str = "8 GiB",
    ) -> None:
        self.name = name
        self.stated = Resources(cores=cores, memory=parse_bytes(memory))
        self.received: list[Received] = []
        self._answer = answer or (lambda _: None)
        self._agent: _StillAgent | None = None
        self._held = False
        self._node = MemoryNode(self._serve, name=name, stated=self.stated)

    def __repr__(self) -> str:
        return f"<StillNode {self.name}, {len(self.received)} calls received>"

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> MemoryConnection:
        """Join the farm and the agent."""
        return await self._node.connect(receiver, first, program=program)

    def hold(self) -> None:
        """Answer nothing until `release`: calls run on."""
        self._held = True

    def release(self) -> None:
        """Answer what was held back, and what comes."""
        self._held = False
        if self._agent is not None:
            self._agent.answer_all()

    def lose(self) -> None:
        """Lose the connection, as when a network fails; the farm will connect again."""
        if self._agent is not None:
            self._agent.connection.fail(NodeError("the test lost it", node=self.name))

    def _serve(self, connection: MemoryConnection) -> Receiver:
        self._agent = _StillAgent(self, connection)
        return self._agent


class _StillAgent:
    """The agent of a `StillNode`: takes what arrives and answers by the node's word."""

    def __init__(self, node: StillNode, connection: MemoryConnection) -> None:
        self.connection = connection
        self._node = node
        self._reader = FrameReader(wire.TO_AGENT)
        self._acknowledged = 0
        self._beats = 0
        self._blobs: dict[int, str] = {}  # functions and objects: for people
        self._incoming: dict[int, Gather] = {}
        self._blob_left: dict[int, int] = {}
        self._running: dict[int, Received] = {}
        self._queued: dict[int, deque[Received]] = {}  # by group
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat = 1.0
        self._ended = False

    # --- Receiver

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the farm wrote."""
        for each in self._reader.feed(data):
            if isinstance(each, Fragment):
                self._take_bulk(each.subject, each.data)
            else:
                self._handle(wire.decode(each))

    def stderr_received(self, data: bytes) -> None:
        """The farm has no standard error for an agent."""

    def pause_writing(self) -> None:
        """What is written is small."""

    def resume_writing(self) -> None:
        """What was written is read."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The farm is gone."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    # --- messages

    def _tell(self, message: wire.Message) -> None:
        if not self._ended:
            self.connection.write([wire.encode(message)])

    def _handle(self, message: wire.Message) -> None:
        if isinstance(message, wire.Welcome):
            self._open(message)
        elif isinstance(message, wire.Run):
            self._run(message)
        elif isinstance(message, wire.Kill):
            self._kill(message)
        elif isinstance(message, wire.Recall):
            self._recall(message)
        elif isinstance(message, wire.Blob):
            self._blobs[message.blob] = message.name
            self._blob_left[message.blob] = message.size
            if not message.size:
                self._tell(wire.Stored(message.blob))
        elif isinstance(message, wire.Ping):
            self._tell(wire.Pong(message.token))
        elif isinstance(message, wire.Stop):
            self._tell(wire.Farewell(0, "the farm asked for it"))
            self.connection.close()

    def _open(self, welcome: wire.Welcome) -> None:
        description = json.dumps({"still": True})
        capacity = self._node.stated
        self.connection.write([wire.MAGIC])
        self._tell(wire.Hello(wire.PROTOCOL_VERSION, capacity, description))
        self._heartbeat = welcome.heartbeat
        self._beat()

    def _beat(self) -> None:
        self._beats += 1
        self._tell(wire.Heartbeat(self._beats, 0.0, self._node.stated.memory or 0, -1.0))
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat, self._beat)

    def _take_bulk(self, subject: int, data: memoryview) -> None:
        self._acknowledged += len(data)
        self._tell(wire.Ack(self._acknowledged))
        self._tell(wire.Credit(subject, len(data)))
        if subject in self._blob_left:
            self._blob_left[subject] -= len(data)
            if not self._blob_left[subject]:
                del self._blob_left[subject]
                self._tell(wire.Stored(subject))
        elif subject in self._incoming:
            payload = self._incoming[subject]
            payload.feed(data)
            if payload.complete:
                del self._incoming[subject]
                self.answer_all()

    # --- calls

    def _run(self, run: wire.Run) -> None:
        payload = Gather(unpack_layout(run.layout, run.size))
        payload.feed(run.body)
        category = self._blobs.get(run.function, "")
        received = Received(category, run.attempt, run.limits, run, payload)
        self._node.received.append(received)
        if not payload.complete:
            self._incoming[run.invocation] = payload
        if run.queued:
            self._queued.setdefault(run.group, deque()).append(received)
        else:
            self._running[run.invocation] = received
        self.answer_all()

    def answer_all(self) -> None:
        """Answer every call that is whole, unless the node holds back."""
        while not self._node._held:
            ready = [one for one in self._running.values() if one._payload.complete]
            if not ready:
                return
            for received in ready:
                self._end(received)

    def _end(self, received: Received) -> None:
        try:
            answer = self._node._answer(received)
        except Exception as exc:  # the test's own: it is what the call raises
            answer = Answer(error=exc)
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        outcome, body = wire.Outcome.RETURNED, b""
        if answer.exhausted:
            outcome = wire.Outcome.EXHAUSTED
        elif answer.error is not None:
            outcome, body = wire.Outcome.RAISED, _dump_error(answer.error)
        else:
            body = pickle.dumps(answer.result, 5)
        if len(body) > _LARGEST_RESULT:
            raise ValueError(f"a still node answers with {_LARGEST_RESULT} bytes at most")
        self._tell_end(received, outcome, answer.usage, answer.exhausted, body)

    def _tell_end(
        self,
        received: Received,
        outcome: wire.Outcome,
        usage: Usage,
        resource: str = "",
        body: bytes = b"",
    ) -> None:
        run = received._run
        del self._running[run.invocation]
        following = self._queued.get(run.group)
        successor = 0
        if following:
            heir = following.popleft()
            successor = heir._run.invocation
            self._running[successor] = heir
        self._tell(
            wire.Ended(
                run.invocation, run.attempt, outcome, 0, successor, len(body), usage,
                b"", resource, b"", body,
            )
        )  # fmt: skip

    def _kill(self, kill: wire.Kill) -> None:
        received = self._running.get(kill.invocation)
        if received is not None:
            self._incoming.pop(kill.invocation, None)
            self._tell_end(received, wire.Outcome.KILLED, Usage())
            self.answer_all()
        elif self._drop(kill.invocation):
            self._tell(wire.Returned(kill.invocation, kill.attempt))

    def _recall(self, recall: wire.Recall) -> None:
        if self._drop(recall.invocation):
            self._tell(wire.Returned(recall.invocation, recall.attempt))

    def _drop(self, invocation: int) -> bool:
        for waiting in self._queued.values():
            for received in waiting:
                if received._run.invocation == invocation:
                    waiting.remove(received)
                    return True
        return False


def _dump_error(error: BaseException) -> bytes:
    """Return what an agent sends of an exception: type, message, traceback, pickle, detail."""
    facts = (type(error).__name__, str(error), "", exceptions.dump(error), "")
    return pickle.dumps(facts, 5)


class TurnedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be turned: what was to happen until then happens next.

    Use it as ``asyncio.Runner(loop_factory=TurnedLoop)``, or as a fixture's loop.
    """

    def __init__(self) -> None:
        self._turned = 0.0
        super().__init__()

    def time(self) -> float:
        """Return the loop's time: the real one, and what it was turned by."""
        return super().time() + self._turned

    def turn(self, seconds: float) -> None:
        """Let this time have passed.

        Raises:
            ValueError: If it is negative: what has happened has happened.
        """
        if seconds < 0:
            raise ValueError(f"a clock is turned forward, not by {seconds!r} s")
        self._turned += seconds
