"""What runs at the other end in the conformance suite, as a program and in memory.

It obeys lines of text until one of them ends it:

    say TEXT       write TEXT
    complain TEXT  write TEXT to standard error
    flood COUNT    write COUNT bytes
    wait PATH      read nothing until there is a file PATH
    echo           write back all that follows
    mark PATH      read to the end of the input, then make a file PATH
    exit CODE      exit
    die            be killed by SIGKILL
"""

from __future__ import annotations

import asyncio
import os
import zlib

from afarm.errors import NodeError
from afarm.transport.memory import MemoryConnection

PROGRAM = zlib.compress(
    rb"""
import os, signal, sys, time

def write(data, to=1):
    view = memoryview(data)
    while view:
        view = view[os.write(to, view):]

pending = b""

def line():
    global pending
    while b"\n" not in pending:
        data = os.read(0, 1 << 16)
        if not data:
            sys.exit(0)
        pending += data
    first, _, pending = pending.partition(b"\n")
    return first

while True:
    word, _, rest = line().partition(b" ")
    if word == b"say":
        write(rest)
    elif word == b"complain":
        write(rest, 2)
    elif word == b"flood":
        piece = bytes(range(256)) * 256
        for start in range(0, int(rest), len(piece)):
            write(piece[:int(rest) - start])
    elif word == b"wait":
        while not os.path.exists(rest):
            time.sleep(0.01)
    elif word == b"echo":
        write(pending)
        while data := os.read(0, 1 << 18):
            write(data)
        sys.exit(0)
    elif word == b"mark":
        while os.read(0, 1 << 18):
            pass
        os.close(os.open(rest, os.O_CREAT | os.O_WRONLY))
        sys.exit(0)
    elif word == b"exit":
        sys.exit(int(rest))
    elif word == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
"""
)


class MemoryPeer:
    """The same in memory: the agent's end of a `MemoryNode`."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._pending = b""
        self._echoing = False
        self._mark = ""

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        if self._echoing:
            self._connection.write([bytes(data)])
            return
        self._pending += data
        while not self._echoing and b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            self._obey(*line.decode().partition(" ")[::2])

    def stderr_received(self, data: bytes) -> None:
        raise AssertionError("the farm has no standard error for the agent")

    def pause_writing(self) -> None:
        """The farm reads slower than we write: this end has nothing it could stop."""

    def resume_writing(self) -> None:
        """The farm has caught up."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._mark:
            os.close(os.open(self._mark, os.O_CREAT | os.O_WRONLY))

    def _obey(self, word: str, rest: str) -> None:
        connection = self._connection
        if word == "say":
            connection.write([rest.encode()])
        elif word == "complain":
            connection.write_stderr(rest.encode())
        elif word == "flood":
            connection.write([(bytes(range(256)) * (int(rest) // 256 + 1))[: int(rest)]])
        elif word == "wait":
            connection.hold()
            self._release_when_there_is(rest)
        elif word == "echo":
            self._echoing = True
            connection.write([self._pending])
        elif word == "mark":
            self._mark = rest
        elif word == "exit" and rest == "0":
            connection.close()
        elif word == "exit":
            connection.fail(NodeError(f"the agent exited with code {rest}"))
        elif word == "die":
            connection.fail(NodeError("the agent was killed by SIGKILL"))

    def _release_when_there_is(self, path: str) -> None:
        if os.path.exists(path):
            self._connection.release()
        else:
            asyncio.get_running_loop().call_later(0.01, self._release_when_there_is, path)
