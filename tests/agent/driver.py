"""A farm's end of the wire for tests of the agent: the real agent over a socket pair."""

from __future__ import annotations

import json
import os
import pickle
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from afarm._wire import messages as m
from afarm._wire.flow import ACK_EVERY
from afarm._wire.frames import BULK, BULK_LIMIT, Fragment, FrameReader, pack_header
from afarm._wire.payloads import INLINE, Gather, pack_layout, slices, unpack_layout
from afarm.payload.pickler import dumps
from afarm.resources import Resources
from afarm.transport import bootstrap

ENVIRONMENT = 7
PATIENCE = 20.0


@dataclass
class Result:
    """What became of an attempt."""

    ended: m.Ended
    parts: list[Any] = field(default_factory=list)

    @property
    def outcome(self) -> m.Outcome:
        return self.ended.outcome

    @property
    def value(self) -> Any:
        assert self.outcome is m.Outcome.RETURNED, self.describe()
        return pickle.loads(self.parts[0], buffers=self.parts[1:])

    @property
    def failure(self) -> tuple[str, str, str, bytes | None, str]:
        found: tuple[str, str, str, bytes | None, str] = pickle.loads(self.parts[0])
        return found

    def describe(self) -> str:
        """Say what went wrong, for assertions."""
        text = self.ended.output.decode("utf-8", "replace")
        told = (m.Outcome.RAISED, m.Outcome.UNUSABLE, m.Outcome.UNPICKLABLE)
        failure = self.failure[:3] if self.outcome in told else ""
        return f"{self.outcome.name} exit={self.ended.exit} {self.ended.resource} {failure} {text}"


class Driver:
    """Starts an agent and talks with it.

    Args:
        scratch: The agent's folder.
        farm: The farm's name.
        capacity: What is stated of the node.
        environ: Environment variables on top of this process's.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        farm: str = "test",
        heartbeat: float = 1.0,
        silence: float = 60.0,
        executable: str = sys.executable,
        welcome: bool = True,
        capacity: Resources | None = None,
        environ: dict[str, str] | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        program = bootstrap.payload()
        self.process = subprocess.Popen(
            [executable, *bootstrap.interpreter_arguments(len(program))],
            stdin=theirs,
            stdout=theirs,
            env={**os.environ, "AFARM_CACHE": str(scratch), **(environ or {})},
        )
        theirs.close()
        self.sock = ours
        self.received: list[m.Message] = []
        self.results: dict[int, Result] = {}
        self.items: dict[int, list[Any]] = {}
        self._gathering: dict[int, tuple[m.Message, Gather]] = {}
        self._reader = FrameReader(m.TO_FARM)
        self._magic = b""
        self._bulk = 0
        self._acknowledged = 0
        self._next = 1000
        self._functions: dict[bytes, int] = {}
        self.auto_credit = True
        first = program
        if welcome:
            stated = capacity or Resources()
            first += m.encode(m.Welcome(1, 42, heartbeat, silence, stated, farm, "here", ""))
        ours.sendall(first)

    # --- sending

    def send(self, *sent: m.Message) -> None:
        self.sock.sendall(b"".join(m.encode(each) for each in sent))

    def number(self) -> int:
        self._next += 1
        return self._next

    def in_place(self, preload: list[str] | None = None, environment: int = ENVIRONMENT) -> None:
        description = {
            "in_place": True,
            "executable": sys.executable,
            "path": [os.path.abspath(p) for p in sys.path],
            "preload": preload or [],
        }
        self.send(m.Environment(environment, json.dumps(description)))

    def bulk(self, subject: int, parts: list[Any]) -> None:
        """Send bulk, reading what the agent says meanwhile."""
        for part in parts:
            view = memoryview(part).cast("B")
            for at in range(0, len(view), BULK_LIMIT):
                piece = view[at : at + BULK_LIMIT]
                self._send_patiently(pack_header(BULK, subject, len(piece)) + bytes(piece))

    def _send_patiently(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            ready, writable, _ = select.select([self.sock], [self.sock], [], PATIENCE)
            assert ready or writable, "the agent neither reads nor writes"
            if ready:
                self._read()
            if writable:
                view = view[self.sock.send(view, socket.MSG_DONTWAIT) :]

    def blob(self, data: bytes, role: str = "function") -> int:
        blob = self.number()
        self.send(m.Blob(blob, len(data), "", role, "a blob"))
        self.bulk(blob, [data])
        return blob

    def function(self, function: Callable[..., Any]) -> int:
        data = dumps(function)
        if data not in self._functions:
            self._functions[data] = self.blob(data)
        return self._functions[data]

    def run(
        self,
        function: Callable[..., Any] | int,
        *args: Any,
        group: int = 1,
        queued: bool = False,
        soft: bool = False,
        reuse: bool = False,
        limits: Resources | None = None,
        settings: dict[str, Any] | None = None,
        refs: bytes = b"",
        payload: list[list[Any]] | None = None,
        environment: int = ENVIRONMENT,
        **kwargs: Any,
    ) -> int:
        """Send a call; return its invocation."""
        blob = function if isinstance(function, int) else self.function(function)
        invocation = self.number()
        if payload is None:
            buffers: list[Any] = []
            data = cloudpickle.dumps(
                (args, kwargs), protocol=5, buffer_callback=lambda b: buffers.append(b.raw())
            )
            payload = [[data, *buffers]]
        layout = pack_layout([[memoryview(p).nbytes for p in group] for group in payload])
        flat = [part for group in payload for part in group]
        size = sum(memoryview(part).nbytes for part in flat)
        inline = size <= INLINE
        self.send(
            m.Run(
                invocation,
                1,
                group,
                queued,
                soft,
                m.Isolation.REUSE if reuse else m.Isolation.FORK,
                environment,
                blob,
                limits or Resources(),
                size,
                layout,
                refs,
                json.dumps(settings) if settings else "",
                b"".join(flat) if inline else b"",
            )
        )
        if not inline:
            self.bulk(invocation, flat)
        return invocation

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Result:
        """Run a call and wait for what becomes of it."""
        return self.result(self.run(function, *args, **options))

    # --- receiving

    def _read(self) -> bool:
        data = self.sock.recv(1 << 20)
        if not data:
            return False
        if len(self._magic) < len(m.MAGIC):
            wanted = len(m.MAGIC) - len(self._magic)
            self._magic += data[:wanted]
            data = data[wanted:]
            assert m.MAGIC.startswith(self._magic)
        for each in self._reader.feed(data):
            if isinstance(each, Fragment):
                self._take_bulk(each)
            else:
                self._take(m.decode(each))
        return True

    def _take_bulk(self, fragment: Fragment) -> None:
        self._bulk += len(fragment.data)
        message, gather = self._gathering[fragment.subject]
        gather.feed(fragment.data)
        if self._bulk - self._acknowledged >= ACK_EVERY or gather.complete:
            self._acknowledged = self._bulk
            self.send(m.Ack(self._bulk))
        if self.auto_credit:
            self.send(m.Credit(fragment.subject, len(fragment.data)))
        if gather.complete:
            del self._gathering[fragment.subject]
            self._complete(message, gather.groups[0])

    def _take(self, message: m.Message) -> None:
        self.received.append(message)
        if isinstance(message, m.Ended | m.Item):
            groups = unpack_layout(message.layout, message.size) if message.size else [[]]
            if message.size > len(message.body):
                self._gathering[message.invocation] = (message, Gather(groups))
            else:
                self._complete(message, slices(message.body, groups)[0])

    def _complete(self, message: m.Message, parts: list[Any]) -> None:
        if isinstance(message, m.Ended):
            assert message.invocation not in self.results, "ended twice"
            self.results[message.invocation] = Result(message, parts)
        elif isinstance(message, m.Item):
            self.items.setdefault(message.invocation, []).append(
                pickle.loads(parts[0], buffers=parts[1:])
            )

    def wait(self, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Read until a condition holds; return its value."""
        until = time.monotonic() + patience
        while not (found := condition()):
            left = until - time.monotonic()
            assert left > 0, f"nothing more for {patience} s; last: {self.received[-5:]}"
            if select.select([self.sock], [], [], left)[0]:
                assert self._read(), f"the agent has gone; last: {self.received[-5:]}"
        return found

    def drain(self, seconds: float) -> None:
        """Take whatever comes within some time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0] and not self._read():
                return

    def result(self, invocation: int, patience: float = PATIENCE) -> Result:
        self.wait(lambda: invocation in self.results, patience)
        return self.results[invocation]

    def of(self, kind: type[m.Message]) -> Iterator[Any]:
        """Yield the messages of one kind that have come."""
        return (each for each in self.received if isinstance(each, kind))

    def wait_for(self, kind: type[m.Message], patience: float = PATIENCE) -> Any:
        return self.wait(lambda: next(self.of(kind), None), patience)

    def output(self, invocation: int, stream: int = 1) -> bytes:
        return b"".join(
            o.body for o in self.of(m.Output) if o.invocation == invocation and o.stream == stream
        )

    # --- the end

    def close(self) -> None:
        """End the agent, and wait until it is gone."""
        self.sock.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
