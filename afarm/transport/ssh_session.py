"""A command that runs on a node, behind an SSH connection: see `base.Connection`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncssh

from .base import Receiver
from .ending import Stderr, describe_end
from .process import EXIT_WAIT, WRITE_LIMIT
from .ssh_speed import packets, spare

if TYPE_CHECKING:
    from .ssh import SSHNode


class SSHSession(asyncssh.SSHClientSession[bytes]):
    """A session, its channel, and the connections that carry it."""

    def __init__(
        self, name: str, hops: Sequence[asyncssh.SSHClientConnection], receiver: Receiver
    ) -> None:
        self._name = name
        self._hops = list(hops)
        self._receiver = receiver
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._stderr = Stderr()
        self._code: int | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._started = False
        self._aborted = False
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "aborted" if self._aborted else "open"
        return f"<SSHSession {self._name}, {len(self._hops)} hops, {state}>"

    @classmethod
    async def start(
        cls,
        node: SSHNode,
        hops: Sequence[asyncssh.SSHClientConnection],
        command: str,
        receiver: Receiver,
        data: Sequence[bytes],
    ) -> SSHSession:
        """Run a command on the node and send it ``data``.

        Raises:
            asyncssh.Error: If the server does not run it; the connections are closed then.
            OSError: If the connection is lost meanwhile.
        """
        session = cls(node.name, hops, receiver)
        for hop in hops:
            spare(hop)
        try:
            # No pty: it would translate bytes. No `errors`, no encoding: bytes both ways.
            await hops[-1].create_session(
                lambda: session, command, encoding=None, request_pty=False
            )
            session._started = True
            session._require_open()
            session.write([b"".join(data)])
        except BaseException:
            session._ended = True
            session._close_hops()
            raise
        return session

    def _require_open(self) -> None:
        if self._ended:
            raise ConnectionResetError("the connection was lost while the command started")

    # What asyncssh calls.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(WRITE_LIMIT)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._ended:
            return
        if datatype is None:
            self._receiver.data_received(data)
        else:
            self._stderr.add(data)
            self._receiver.stderr_received(data)

    def pause_writing(self) -> None:
        if not self._ended:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        if not self._ended:
            self._receiver.resume_writing()

    def eof_received(self) -> bool:
        self._expect_end()
        return False

    def exit_status_received(self, status: int) -> None:
        self._code = status
        self._expect_end()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._code = -_signal_number(signal)
        self._expect_end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._code is None and not self._aborted:
            exc = asyncssh.ConnectionLost("it was closed without an exit status")
        self._end(exc)

    # What the link calls.

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        channel = self._channel
        if channel is None or self._ended or self._aborted or channel.is_closing():
            return
        for packet in packets(parts):
            channel.write(packet)  # copied, into a bytearray of the channel's

    def abort(self) -> None:
        self._aborted = True
        self._close_hops()

    async def wait_closed(self) -> None:
        for hop in reversed(self._hops):
            await hop.wait_closed()

    # The end.

    def _expect_end(self) -> None:
        """Wait a little for the rest: sshd keeps a channel open while anyone holds its pipes."""
        if self._deadline is None and not self._ended:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(EXIT_WAIT, self._end, None)

    def _end(self, exc: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._close_hops()
        if self._started:
            reason = (
                None if self._aborted else describe_end(self._name, self._code, self._stderr, exc)
            )
            self._receiver.connection_lost(reason)

    def _close_hops(self) -> None:
        # With a word of farewell where it can still be sent, without waiting for it.
        for hop in reversed(self._hops):
            hop.close()


def _signal_number(name: str) -> int:
    number: Any = getattr(signal, f"SIG{name}", None)
    return int(number) if number is not None else int(signal.SIGKILL)
