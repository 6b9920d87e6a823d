"""What a transport is: `Node`, the `Connection` it opens, the `Receiver` that it feeds.

Callbacks instead of streams: a connection passes what it reads straight on, in the
buffer it was read into, and costs no task and no wake-up per message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..resources import Resources


class Receiver(Protocol):
    """The farm's end of a connection. All calls come from the loop's thread.

    They may begin before `Node.connect` has returned.
    """

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the agent wrote; ``data`` is valid until this returns."""

    def stderr_received(self, data: bytes) -> None:
        """Take what was printed to standard error on the node, or about it."""

    def pause_writing(self) -> None:
        """Write no more than must be: what was written waits in this process's memory."""

    def resume_writing(self) -> None:
        """Most of what waited has left."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; called exactly once, and last.

        ``exc`` says why, as a `NodeError` where the reason is known to people too, or is
        ``None`` where the other side ended in good order, or this side aborted.
        """


class Connection(Protocol):
    """The farm's side of a running agent's standard input, output and error."""

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Queue these bytes; never blocks, and does nothing once the connection is lost.

        All parts leave in one write where possible. The memory of a part may be read
        until it has left: nobody may change it before that.
        """

    def abort(self) -> None:
        """Close at once, without sending what is queued; the agent ends at the end of its input.

        `Receiver.connection_lost` follows in a later turn of the loop.
        """

    async def wait_closed(self) -> None:
        """Return when the connection is gone and all that was started for it here is reaped."""


class Node(Protocol):
    """A machine on which an agent can be started. Immutable, comparable, printable."""

    @property
    def name(self) -> str:
        """What the farm calls it; unique in a farm."""

    @property
    def stated(self) -> Resources:
        """The capacity that the user stated; the rest is measured on the node."""

    @property
    def scratch(self) -> str:
        """Where the agent is to keep its files; empty: where it thinks best."""

    @property
    def in_place(self) -> bool:
        """Whether the farm's own interpreter and ``sys.path`` serve there."""

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> Connection:
        """Start the agent's interpreter and send it the bootstrap and ``first``, in one write.

        Args:
            receiver: Is told what arrives.
            first: What follows the bootstrap: the first frames.
            program: Compressed source to run there instead of the agent.

        Raises:
            NodeError: If it cannot be started; says what to do. ``receiver`` then hears
                nothing of a lost connection.
        """
