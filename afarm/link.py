"""One connection to one node: what is sent, what the node has, and whether it lives.

A `Link` is made for each connection and dies with it. It knows the wire and nothing of
decisions: the scheduler tells it what to send, and is told what arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ._wire import flow
from ._wire import messages as wire
from ._wire.frames import Fragment, FrameReader
from ._wire.payloads import Buffer
from .errors import NodeError, ProtocolError, RemoteProtocolError
from .incoming import Announced, Incoming
from .outgoing import Outgoing
from .transport.base import Connection, Node
from .transport.contact import Contact

if TYPE_CHECKING:
    from .environments import Bundle

log = logging.getLogger("afarm")

# Agents send a heartbeat each second. A node is judged lost after eight seconds
# in which this side's loop ran and nothing came: more than any pause of a loaded node
# that was seen, and still "in seconds".
HEARTBEAT = 1.0
PATIENCE = 8.0

# The agent is interpreted Python that has yet to start, on a machine that may be busy,
# behind a link that may be slow; connecting itself has its own time limit.
HELLO_TIMEOUT = 60.0

# What was started for a node that is refused gets so long to be gone: farms may end then.
REAPING = 2.0

# What may come before the agent's first byte: banners, `.bashrc`, `/etc/motd`.
NOISE_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the agent is told when it starts.

    Attributes:
        farm: Unique to the farm.
        hash_seed: Of all its workers.
        silence: Seconds without a sign of life after which a node ends what it runs.
    """

    farm: str
    hash_seed: int
    silence: float


class LinkEvents(Protocol):
    """Who is told what arrives: the scheduler."""

    def attempt_ended(self, link: Link, ended: wire.Ended, parts: list[Buffer]) -> None: ...

    def lane_handed_on(self, link: Link, ended: wire.Ended) -> None:
        """Another attempt has the allocation of one whose result is still on its way."""

    def result_lost(self, link: Link, ended: wire.Ended, reason: str) -> None:
        """An attempt returned, but not all of its result will ever arrive."""

    def attempt_returned(self, link: Link, returned: wire.Returned) -> None: ...

    def item_arrived(self, link: Link, item: wire.Item, parts: list[Buffer]) -> None: ...

    def output_arrived(self, link: Link, output: wire.Output) -> None: ...

    def reading_arrived(self, link: Link, reading: wire.Reading) -> None: ...

    def details_arrived(self, link: Link, details: wire.Details) -> None: ...

    def heartbeat_arrived(self, link: Link, beat: wire.Heartbeat) -> None: ...

    def blob_state(self, link: Link, state: wire.Stored | wire.Lost) -> None: ...

    def environment_state(self, link: Link, state: wire.EnvironmentState) -> None: ...

    def module_missing(self, link: Link, missing: wire.Missing) -> None:
        """A call waits for a module that its environment lacks."""

    def batch_ended(self, link: Link) -> None:
        """All that one read brought has been told."""

    def link_lost(self, link: Link, reason: str) -> None: ...


class Link:
    """The farm's end of one connection to an agent.

    Args:
        node: What to connect to.
        events: Who is told what arrives.
        greeting: What the agent is told first.
        epoch: How many connections of this farm to this node came before.
    """

    def __init__(self, node: Node, events: LinkEvents, greeting: Greeting, epoch: int) -> None:
        self.node = node
        self.hello: wire.Hello | None = None
        self.description: dict[str, Any] = {}
        self.heartbeat: wire.Heartbeat | None = None
        self.round_trip: float | None = None
        self.notes: dict[int, str] = {}  # of environments
        self.broken: dict[int, str] = {}  # environments that cannot be had, and why
        self.known: set[int] = set()  # environments and blobs that were announced
        self._events = events
        self._greeting = greeting
        self._epoch = epoch
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._noise: bytearray | None = bytearray()
        self._stderr = bytearray()
        self._reader = FrameReader(wire.TO_FARM)
        self._outgoing = Outgoing(self._want_flush)
        self._incoming = Incoming(self._arrived, self._handed_on, self._renew)
        self._paused = False
        self._flush_due = False
        self._receipt = flow.Receipt()
        self._acknowledging = False
        self._unheard = 0.0
        self._pings: dict[int, float] = {}
        self._pinged = 0
        self._farewell: str | None = None
        self._over = False

    def __repr__(self) -> str:
        state = "closed" if self._over else "up" if self.hello else "connecting"
        return f"<Link to {self.node.name}, {state}>"

    # --- life

    async def open(self) -> None:
        """Connect, start the agent and wait for its first message.

        Raises:
            NodeError: If that cannot be done; the message says why and what to do.
        """
        welcome = wire.Welcome(
            epoch=self._epoch,
            hash_seed=self._greeting.hash_seed,
            heartbeat=HEARTBEAT,
            silence=self._greeting.silence,
            capacity=self.node.stated,
            farm=self._greeting.farm,
            node=self.node.name,
            scratch=self.node.scratch,
        )
        try:
            self._connection = await self.node.connect(self, [wire.encode(welcome)])
            await self._wait_ready()
            self.flush()
        except TimeoutError as exc:
            await self.close(REAPING)
            raise NodeError(
                f"node {self.node.name}: connected, but no agent answered within "
                f"{HELLO_TIMEOUT:g} s{self._what_was_said()}",
                node=self.node.name,
            ) from exc
        except Exception:
            await self.close(REAPING)
            raise
        except BaseException:
            self.abort()
            raise
        problem = self.description.get("not_to_ship")
        if problem and not self.node.in_place:
            await self.close(HELLO_TIMEOUT)
            raise NodeError(f"node {self.node.name}: {problem}", node=self.node.name)

    async def _wait_ready(self) -> None:
        """Wait for the agent's first message; while it is sent an interpreter, for that too.

        Raises:
            TimeoutError: If it takes too long.
        """
        while True:
            done, _ = await asyncio.wait({self._ready}, timeout=HELLO_TIMEOUT)
            if done:
                return self._ready.result()
            contact = self._connection
            if not isinstance(contact, Contact) or not contact.preparing:
                raise TimeoutError

    def abort(self) -> None:
        """Close the connection at once; what runs on the node ends by itself."""
        if self._connection is not None:
            self._connection.abort()

    def fail(self, reason: str) -> None:
        """Give the node up: it lives, but cannot be used."""
        self._lose(reason)

    async def close(self, timeout: float) -> None:
        """Ask the agent to end everything; wait until it has, at most ``timeout`` seconds."""
        if self._connection is None:
            return
        if not self._over and self.hello is not None:
            self.send(wire.Stop(0))
            self.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._connection.wait_closed()
        self._connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._connection.wait_closed()

    def check(self, elapsed: float) -> None:
        """Judge whether the node still lives; called about once a second.

        Args:
            elapsed: Seconds since the last call, in which this side's loop ran: time in
                which the loop was held up, or the machine slept, does not count.
        """
        if self._over or self.hello is None:
            return
        self._unheard += elapsed
        if self._unheard > PATIENCE:
            self._lose(f"nothing heard from it for {self._unheard:.0f} s")
            return
        self._pinged += 1
        self._pings[self._pinged] = self._loop.time()
        self.send(wire.Ping(self._pinged))

    # --- sending

    def send(self, message: wire.Message) -> None:
        """Queue a control message; all that one tick of the loop queues leaves in one write."""
        self._outgoing.message(message)
        self._want_flush()

    def cork(self) -> None:
        """Hold back what is queued from now on until `flush` is called."""
        self._flush_due = True

    def _want_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def send_blob(self, message: wire.Blob, pieces: Sequence[Buffer]) -> None:
        """Queue a blob: its announcement, then its bytes."""
        self.known.add(message.blob)
        self.send(message)
        self.send_bulk(message.blob, pieces)

    def send_bundle(self, blob: int, bundle: Bundle) -> None:
        """Queue a bundle behind those that were queued before, unless it is among them.

        Raises:
            OSError: If it cannot be read.
        """
        if self._outgoing.bundle(blob, bundle):
            self.known.add(blob)
            self._want_flush()

    def send_bulk(self, subject: int, pieces: Sequence[Buffer]) -> None:
        """Queue the bytes of a blob or payload that was announced."""
        self._outgoing.bulk(subject, pieces)
        self._want_flush()

    def drop_bulk(self, subject: int) -> None:
        """Send no more of a payload: whoever was to have it is gone."""
        self._outgoing.drop(subject)

    def forget(self, blob: int) -> None:
        """Tell the node that a blob is not needed any more."""
        if blob in self.known:
            self.known.discard(blob)
            self.drop_bulk(blob)
            if not self._over:
                self.send(wire.Forget(blob))

    @property
    def bytes_sent(self) -> int:
        """Bytes of blobs and payloads that were sent."""
        return self._outgoing.sent

    def flush(self) -> None:
        """Write what is queued: control messages, then as much bulk as may be on its way."""
        self._flush_due = False
        if self._connection is None or self._over or self.hello is None:
            return
        parts, more = self._outgoing.take(self._loop.time(), bulk=not self._paused)
        if parts:
            self._connection.write(parts)
        if more and not self._paused:  # writing may have told this link to pause
            self._want_flush()

    # --- transport.base.Receiver

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def stderr_received(self, data: bytes) -> None:
        self._stderr += data[: max(0, NOISE_LIMIT - len(self._stderr))]
        if self._noise is None:
            log.warning("%s: %s", self.node.name, data.decode(errors="replace").rstrip())

    def data_received(self, data: Buffer) -> None:
        if self._over:
            return
        self._unheard = 0.0
        try:
            if self._noise is not None:
                data = self._skip_noise(data)
            for found in self._reader.feed(data):
                if type(found) is Fragment:
                    self._receipt.received += len(found.data)
                    self._incoming.feed(found)
                else:
                    self._dispatch(wire.decode(found))  # type: ignore[arg-type]
            self._acknowledge()
        except ProtocolError as exc:
            self._lose(str(exc))
        else:
            self._events.batch_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = self._farewell or (str(exc) if exc else "the connection was closed")
        self._lose(reason.removeprefix(f"node {self.node.name}: "))

    def _skip_noise(self, data: Buffer) -> Buffer:
        """Return what follows the agent's magic, or nothing while it has not come."""
        noise = self._noise
        assert noise is not None
        noise += data
        at = noise.find(wire.MAGIC)
        if at < 0:
            if len(noise) > NOISE_LIMIT:
                raise RemoteProtocolError(
                    f"no agent answered, only {len(noise)} bytes of other text"
                    f"{self._what_was_said()}"
                )
            return b""
        if at:
            log.debug("%s said before its agent: %r", self.node.name, bytes(noise[:at]))
        self._noise = None
        return bytes(noise[at + len(wire.MAGIC) :])

    def _what_was_said(self) -> str:
        """Return what came instead of an agent, for an error message."""
        said = b"\n".join(bytes(part) for part in (self._noise or b"", self._stderr) if part)
        text = said.decode(errors="replace").strip()
        return f"; it said: {text[-2000:]}" if text else ""

    def _lose(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._outgoing.close()
        self._incoming.clear()
        if self._connection is not None:
            self._connection.abort()
        if not self._ready.done():
            said = self._what_was_said()
            reason = f"node {self.node.name}: its agent did not start: {reason}{said}"
            self._ready.set_exception(NodeError(reason, node=self.node.name))
            self._ready.exception()  # looked at: `open` may have been cancelled
        elif self.hello is not None:
            self._events.link_lost(self, reason)

    # --- receiving

    def _arrived(self, message: Announced, parts: list[Buffer]) -> None:
        if isinstance(message, wire.Ended):
            self._events.attempt_ended(self, message, parts)
        else:
            self._events.item_arrived(self, message, parts)

    def _handed_on(self, ended: wire.Ended) -> None:
        self._events.lane_handed_on(self, ended)

    def _renew(self, invocation: int, amount: int) -> None:
        self.send(wire.Credit(invocation, amount))

    def _acknowledge(self) -> None:
        if self._acknowledging:
            return
        now = self._loop.time()
        wait = self._receipt.wait(now)
        if wait == 0.0 or (self._receipt.due and not self._incoming):
            self.send(wire.Ack(self._receipt.acknowledge(now)))
        elif wait is not None:
            self._acknowledging = True
            self._loop.call_later(wait, self._acknowledge_later)

    def _acknowledge_later(self) -> None:
        self._acknowledging = False
        if not self._over:
            self._acknowledge()

    def _dispatch(self, message: wire.Message) -> None:
        if isinstance(message, wire.Ended):
            self._outgoing.drop(message.invocation)
            self._incoming.announce(message)
        elif isinstance(message, wire.Returned):
            self._outgoing.drop(message.invocation)
            self._incoming.drop(message.invocation)
            self._events.attempt_returned(self, message)
        elif isinstance(message, wire.Item):
            self._incoming.announce(message)
        elif isinstance(message, wire.Output):
            self._events.output_arrived(self, message)
        elif isinstance(message, wire.Reading):
            self._events.reading_arrived(self, message)
        elif isinstance(message, wire.Details):
            self._events.details_arrived(self, message)
        elif isinstance(message, wire.Ack):
            if not self._outgoing.acknowledged(message.received, self._loop.time()):
                raise RemoteProtocolError(
                    f"{message.received} bytes acknowledged of {self._outgoing.sent} sent"
                )
            self.flush()
        elif isinstance(message, wire.Credit):
            if self._outgoing.renew(message.subject, message.amount):
                self.flush()
        else:
            self._dispatch_rare(message)

    def _lose_result(self, invocation: int, reason: str) -> None:
        """The worker died while it handed over a result."""
        ended = self._incoming.give_up(invocation)
        if ended is not None:
            crashed = replace(
                ended, outcome=wire.Outcome.CRASHED, exit=-signal.SIGKILL, size=0, layout=b""
            )
            self._events.result_lost(self, crashed, reason)

    def _dispatch_rare(self, message: wire.Message) -> None:
        if isinstance(message, wire.Heartbeat):
            self.heartbeat = message
            self._events.heartbeat_arrived(self, message)
        elif isinstance(message, wire.Pong):
            sent = self._pings.pop(message.token, None)
            if sent is not None:
                trip = self._loop.time() - sent
                self.round_trip = min(trip, self.round_trip or trip)
                self._outgoing.round_trip(trip)
        elif isinstance(message, wire.Lost) and message.blob in self._incoming:
            self._lose_result(message.blob, message.reason)
        elif isinstance(message, wire.Stored | wire.Lost):
            if isinstance(message, wire.Stored) or message.reason != "absent":
                self._outgoing.answered(message.blob)
            self._events.blob_state(self, message)
        elif isinstance(message, wire.EnvironmentState):
            self.notes[message.environment] = message.notes
            self._events.environment_state(self, message)
        elif isinstance(message, wire.Missing):
            self._events.module_missing(self, message)
        elif isinstance(message, wire.Notice):
            log.log(message.level, "%s: %s", self.node.name, message.text)
        elif isinstance(message, wire.Farewell):
            self._farewell = message.reason or "its agent ended"
        elif isinstance(message, wire.Hello):
            self._greet(message)

    def _greet(self, hello: wire.Hello) -> None:
        if self.hello is not None:
            raise RemoteProtocolError("a second Hello")
        if hello.version != wire.PROTOCOL_VERSION:
            raise RemoteProtocolError(f"protocol version {hello.version}")
        try:
            description = json.loads(hello.description)
        except ValueError as exc:
            raise RemoteProtocolError(f"a Hello that is not JSON: {exc}") from exc
        if not isinstance(description, Mapping):
            raise RemoteProtocolError("a Hello without a description")
        self.description = dict(description)
        self.hello = hello
        if not self._ready.done():
            self._ready.set_result(None)
