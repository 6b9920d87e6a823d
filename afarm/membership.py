"""Which nodes belong to a farm: they are taken, connected, judged, let go and released.

When to connect again, and when a node is empty, the core says; what it is told of nodes is
posted here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random

from ._core import events as event
from .errors import NodeError
from .link import Greeting, Link, LinkEvents
from .transport.base import Node
from .turns import Turns

log = logging.getLogger("afarm")

# How often nodes are judged, in seconds.
CHECK = 1.0

# How long the agents have to end everything when the farm closes; "gone within 5 s" is
# what they promise themselves.
CLOSING = 6.0

# And how long when nobody wants to wait for that: enough for a word of farewell.
HURRIED = 0.2


class Membership:
    """The nodes of one farm and the connections to them.

    Args:
        turns: Where events go.
        listener: Who is told what the nodes say.
        silence: Seconds without a sign of life after which a node ends what it runs.

    Attributes:
        specs: The nodes by name, connected or not.
        links: The connections that are up, by the names of their nodes.
    """

    def __init__(self, turns: Turns, listener: LinkEvents, *, silence: float) -> None:
        self.specs: dict[str, Node] = {}
        self.links: dict[str, Link] = {}
        self._turns = turns
        self._listener = listener
        self._greeting = Greeting(
            farm=f"{os.getpid()}-{random.SystemRandom().getrandbits(64):016x}",
            hash_seed=random.SystemRandom().randrange(1, 1 << 32),
            silence=silence,
        )
        self._first_tries: dict[str, asyncio.Future[str | None]] = {}
        self._released: dict[str, asyncio.Future[None]] = {}
        self._epochs: dict[str, itertools.count[int]] = {}
        self._closing = False
        self._checked = turns.loop.time()
        self._checks = turns.loop.call_later(CHECK, self._check)

    # --- coming

    def add(self, node: Node) -> asyncio.Future[str | None]:
        """Take a node; the future says how the first try to open it went: why not, or ``None``."""
        first_try: asyncio.Future[str | None] = self._turns.loop.create_future()
        self._first_tries[node.name] = first_try
        self.specs[node.name] = node
        self._epochs[node.name] = itertools.count()
        self._turns.post(event.AddNode(node.name, self._turns.now()))
        return first_try

    def connect(self, name: str, delay: float) -> None:
        """Try to open a node, ``delay`` seconds from now."""
        self._turns.spawn(self._connect(name, delay))

    async def _connect(self, name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        node = self.specs.get(name)
        if node is None:
            return
        link = Link(node, self._listener, self._greeting, next(self._epochs[name]))
        reason = None
        try:
            await link.open()
        except NodeError as exc:
            reason = str(exc)
        except OSError as exc:
            reason = f"node {name}: {exc}"
        except Exception as exc:  # a fault of ours: nobody may wait for this node for ever
            log.exception("a fault inside the farm, please report it")
            reason = f"node {name}: {exc!r}"
        if reason is None:
            assert link.hello is not None
            self.links[name] = link
            self._turns.post(event.NodeUp(name, link.hello.capacity, self._turns.now()))
        else:
            log.warning("%s", reason)
            self._turns.post(event.NodeFailed(name, reason, self._turns.now()))
        first_try = self._first_tries.get(name)
        if first_try is not None and not first_try.done():
            first_try.set_result(reason)

    # --- staying

    def holds(self, link: Link) -> bool:
        """Return whether this connection is the one to its node: it may be lost or replaced."""
        return self.links.get(link.node.name) is link

    def lose(self, link: Link, reason: str) -> None:
        """Note that a connection is no more."""
        name = link.node.name
        del self.links[name]
        if not self._closing:
            log.warning("node %s is lost: %s", name, reason)
            self._turns.post(event.LoseNode(name, reason, self._turns.now()))

    def _check(self) -> None:
        """Judge the nodes by this side's own clock: only time in which the loop ran counts."""
        now = self._turns.loop.time()
        elapsed = min(now - self._checked, 2 * CHECK)
        self._checked = now
        for link in list(self.links.values()):
            link.check(elapsed)
        self._checks = self._turns.loop.call_later(CHECK, self._check)

    # --- going

    async def remove(self, name: str, *, drain: bool) -> None:
        """Let a node go, at once or when it is empty; return when it is gone."""
        released = self._released.setdefault(name, self._turns.loop.create_future())
        if drain:
            self._turns.post(event.DrainNode(name, self._turns.now()))
        else:
            self._turns.post(event.DropNode(name, self._turns.now()))
        await asyncio.shield(released)

    def release(self, name: str) -> None:
        """Close the connection to a node on which nothing is left."""
        link = self.links.pop(name, None)
        self.specs.pop(name, None)
        self._turns.spawn(self._let_go(name, link))

    async def _let_go(self, name: str, link: Link | None) -> None:
        if link is not None:
            await link.close(CLOSING)
        released = self._released.pop(name, None)
        if released is not None and not released.done():
            released.set_result(None)

    # --- the end of all

    def abandon(self, reason: str) -> None:
        """End what runs on the nodes, since nothing is going to be decided any more."""
        self._answer_all(reason)
        for link in self.links.values():
            self._turns.spawn(link.close(CLOSING))

    async def close(self, *, hurry: bool) -> None:
        """End what is under way, then close all connections.

        Args:
            hurry: Do not wait for the nodes: they end what they run by themselves.
        """
        self._closing = True
        self._checks.cancel()
        try:
            await self._turns.end()
            await self._close_links(HURRIED if hurry else CLOSING)
        except asyncio.CancelledError:
            await self._close_links(HURRIED)
            raise
        finally:
            self.links.clear()
            self._answer_all("the farm was closed before the node was up")

    async def _close_links(self, timeout: float) -> None:
        await asyncio.gather(*(link.close(timeout) for link in self.links.values()))

    def _answer_all(self, reason: str) -> None:
        """Answer those who wait for a node to come or to go: nothing will happen any more."""
        for first_try in self._first_tries.values():
            if not first_try.done():
                first_try.set_result(reason)
        for released in self._released.values():
            if not released.done():
                released.set_result(None)
