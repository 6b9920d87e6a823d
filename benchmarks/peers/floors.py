"""The least that a call in a process of its own can cost, written down as plainly as possible.

No scheduling, no limits, no cancelling, no crash that anyone survives: what is left when
all that afarm adds is taken away, measured from the same process image.
"""

from __future__ import annotations

import os
import pickle
import resource
import selectors
import socket
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from .base import WORKERS, Peer, Wait


class ForkFloor(Peer):
    """A fork for each call, its result through a pipe, its usage from ``wait4``."""

    def open(self) -> None:
        self.call(len, "")

    def close(self) -> None:
        """Nothing outlives a call."""

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        child, pipe = self._start(fn, args)
        return lambda seconds: self._finish(child, pipe)

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, int]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            # An error ends the child through _exit as well: nothing of the parent runs twice.
            try:
                os.write(writer, pickle.dumps(fn(*args), protocol=5))
            finally:
                os._exit(0)
        os.close(writer)
        return child, reader

    def _finish(self, child: int, pipe: int) -> Any:
        parts = []
        while part := os.read(pipe, 1 << 16):
            parts.append(part)
        os.close(pipe)
        os.wait4(child, 0)
        return pickle.loads(b"".join(parts))

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        """Keep as many children at once as there are workers."""
        running: list[tuple[int, int]] = []
        results = []
        for argument in arguments:
            if len(running) == WORKERS:
                results.append(self._finish(*running.pop(0)))
            running.append(self._start(fn, (argument,)))
        return results + [self._finish(*one) for one in running]


class ReusedFloor(Peer):
    """A worker that resets its high-water mark before each call and reads it after."""

    # As many calls are on their way to a worker as keep it busy while the parent reads.
    AHEAD = 16

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._children: list[int] = []

    def open(self) -> None:
        for _ in range(WORKERS):
            ours, theirs = socket.socketpair()
            child = os.fork()
            if child == 0:
                ours.close()
                try:
                    _serve(theirs)
                finally:
                    os._exit(0)
            theirs.close()
            self._sockets.append(ours)
            self._children.append(child)
        self.call(len, "")

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()
        for child in self._children:
            os.waitpid(child, 0)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        connection = self._sockets[0]
        _send(connection, pickle.dumps((fn, args), protocol=5))
        return lambda seconds: pickle.loads(_receive(connection))[0]

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        calls = (pickle.dumps((fn, (argument,)), protocol=5) for argument in arguments)
        results: list[Any] = []
        outstanding = 0
        with selectors.DefaultSelector() as selector:
            for connection in self._sockets:
                selector.register(connection, selectors.EVENT_READ)
                for call in islice(calls, self.AHEAD):
                    _send(connection, call)
                    outstanding += 1
            while outstanding:
                for key, _ in selector.select():
                    connection = self._sockets[self._sockets.index(key.fileobj)]  # type: ignore[arg-type]
                    results.append(pickle.loads(_receive(connection))[0])
                    outstanding -= 1
                    for call in islice(calls, 1):
                        _send(connection, call)
                        outstanding += 1
        return results


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(len(data).to_bytes(4, "little") + data)


def _receive(connection: socket.socket) -> bytes:
    header = connection.recv(4, socket.MSG_WAITALL)
    if not header:
        raise EOFError
    return connection.recv(int.from_bytes(header, "little"), socket.MSG_WAITALL)


def _serve(connection: socket.socket) -> None:
    """Run calls until the other end is closed; answer each with its result and its usage."""
    clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
    status = os.open("/proc/self/status", os.O_RDONLY)
    while True:
        try:
            fn, args = pickle.loads(_receive(connection))
        except EOFError:
            return
        os.write(clear, b"5")
        before = resource.getrusage(resource.RUSAGE_SELF)
        result = fn(*args)
        after = resource.getrusage(resource.RUSAGE_SELF)
        text = os.pread(status, 4096, 0)
        at = text.index(b"VmHWM:") + 6
        peak = int(text[at : text.index(b"kB", at)])
        usage = (peak, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
        _send(connection, pickle.dumps((result, usage), protocol=5))
