"""A program on this machine as a connection: what `local` and `command` nodes share.

The program's standard input and output are one socket of a pair, so that a connection
costs one descriptor here and what is written passes in large pieces; its standard
error is a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence

from ..errors import NodeError
from .base import Connection, Receiver
from .ending import Stderr, describe_end

# What one read takes at most. The kernel hands over as much as a socket pair holds
# (about 0.2 MB by default), so that a larger buffer would stay empty.
READ_SIZE = 1 << 18

# What the socket holds that the program has not read; by default 208 KiB.
SOCKET_SIZE = 1 << 20

# Above this the link is told to pause; more would only lengthen the queue that a
# control frame waits in.
WRITE_LIMIT = 1 << 18

# Parts shorter than this are copied together into one write; a longer one is worth a
# system call of its own.
JOIN_LIMIT = 1 << 16

# How long a program that has closed its output may take to exit before the connection
# is reported lost without an exit code (s).
EXIT_WAIT = 1.0

# How long one may take at all, after its input has ended: an agent ends everything it
# started within 5 s, and then this is only for programs that hang (s).
KILL_AFTER = 8.0


def joined(parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the same bytes in few parts: short neighbours copied together, long ones as is."""
    if len(parts) == 1 or sum(map(len, parts)) < JOIN_LIMIT:
        return [parts[0] if len(parts) == 1 else b"".join(parts)]
    result: list[bytes | memoryview] = []
    short: list[bytes | memoryview] = []
    for part in parts:
        if len(part) < JOIN_LIMIT:
            short.append(part)
            continue
        if short:
            result.append(b"".join(short))
            short = []
        result.append(part)
    if short:
        result.append(b"".join(short))
    return result


class _Stream(asyncio.BufferedProtocol):
    """Standard input and output of the program."""

    def __init__(self, receiver: Receiver, ended: Callable[[Exception | None], None]) -> None:
        self._receiver = receiver
        self._ended = ended
        self._buffer = memoryview(bytearray(READ_SIZE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport.get_extra_info("socket")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.data_received(self._buffer[:nbytes])

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_rest()
        self._ended(exc)

    def _read_rest(self) -> None:
        """Take what the program said before it stopped reading.

        A write that fails ends the transport before it has read what lies in the socket:
        of a program that exits at once, the very words that say why.
        """
        with contextlib.suppress(OSError):
            while count := os.readv(self._socket.fileno(), (self._buffer,)):
                self._receiver.data_received(self._buffer[:count])


class _Errors(asyncio.Protocol):
    """Standard error of the program."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class ProcessConnection:
    """A running program; see `base.Connection`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], receiver: Receiver) -> None:
        self._name = name
        self._process = process
        self._receiver = receiver
        self._stderr = Stderr()
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()
        self._aborted = False
        self._lost = False
        self._transport: asyncio.Transport | None = None
        self._errors: asyncio.BaseTransport | None = None
        self._errors_ended = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        _watch(process, self._exited.set)

    def __repr__(self) -> str:
        state = "aborted" if self._aborted else "lost" if self._lost else "open"
        return f"<ProcessConnection {self._name} pid {self._process.pid}, {state}>"

    async def open(self, sock: socket.socket) -> None:
        """Begin to read and write; ``sock`` belongs to the connection from now on."""
        loop = asyncio.get_running_loop()
        assert self._process.stderr is not None
        self._errors, errors = await loop.connect_read_pipe(
            lambda: _Errors(self._stderr_received), self._process.stderr
        )
        self._errors_ended = errors.ended
        self._transport, _ = await loop.create_unix_connection(
            lambda: _Stream(self._receiver, self._stream_ended), sock=sock
        )
        self._transport.set_write_buffer_limits(WRITE_LIMIT)

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        transport = self._transport
        if transport is None or self._aborted or transport.is_closing():
            return
        for part in joined(parts):
            transport.write(part)

    def abort(self) -> None:
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def _stderr_received(self, data: bytes) -> None:
        if not self._lost:
            self._stderr.add(data)
            self._receiver.stderr_received(data)

    def _stream_ended(self, exc: Exception | None) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end(exc))

    async def _end(self, exc: Exception | None) -> None:
        """Report the loss, with the exit code if there is one soon; then see the program gone."""
        try:
            if not self._aborted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_WAIT):
                        await self._exited.wait()
                        await self._errors_ended.wait()
        finally:
            self._lost = True
            code = self._process.returncode if self._exited.is_set() else None
            reason = None if self._aborted else describe_end(self._name, code, self._stderr, exc)
            self._receiver.connection_lost(reason)
            await self._reap()

    async def _reap(self) -> None:
        try:
            async with asyncio.timeout(KILL_AFTER):
                await self._exited.wait()
        except TimeoutError:
            self._process.kill()
            await self._exited.wait()
        finally:
            if self._errors is not None:
                self._errors.close()
            self._closed.set()


def _watch(process: subprocess.Popen[bytes], exited: Callable[[], None]) -> None:
    """Reap the process when it exits, and then call ``exited`` in the loop.

    Not through asyncio's child watchers: in 3.11 they start a thread for each process,
    need the main thread, or a signal handler that the user's program may want.
    """
    loop = asyncio.get_running_loop()

    def reaped() -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(exited)

    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or before 5.3
        threading.Thread(target=reaped, name=f"afarm-wait-{process.pid}", daemon=True).start()
        return

    def readable() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()
        exited()

    loop.add_reader(pidfd, readable)


async def start(
    name: str, argv: Sequence[str], receiver: Receiver, data: Sequence[bytes]
) -> Connection:
    """Start a program and send it ``data``.

    Raises:
        NodeError: If the program cannot be started.
    """
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_SIZE)
    try:
        # A session of its own: a Ctrl-C in the terminal is for the farm, which knows
        # what to end first. Forked from this very thread, since the agent asks to be
        # told when its parent thread ends.
        process = subprocess.Popen(
            list(argv),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        ours.close()
        raise NodeError(
            f"node {name}: cannot start {argv[0]!r}: {exc.strerror or exc}; is it installed, and"
            " in PATH?",
            node=name,
        ) from exc
    finally:
        theirs.close()
    connection = ProcessConnection(name, process, receiver)
    await connection.open(ours)
    connection.write([b"".join(data)])
    return connection
