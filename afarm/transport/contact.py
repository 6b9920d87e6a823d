"""The first words with a node: where it has no fitting Python, it is sent this side's own.

A node that finds one starts it, and nothing of this is used: the payload went along with the
command. Otherwise its script says so and runs what it is sent, over the same connection; what
is asked and answered stands in `install`.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .._monitor.kernel import why_no_node
from .._wire.messages import MAGIC
from ..errors import DependencyError, NodeError
from . import bootstrap, install
from .base import Connection, Receiver

if TYPE_CHECKING:
    from ..environments.interpreter import Interpreter

# What may be printed before a node's first word; the link shows as much of it.
_NOISE = 64 << 10

# What is written at once of an interpreter, so that the loop is not held up.
_PIECE = 256 << 10

# In which 25 MB must have arrived and been unpacked: over 1 Mbit/s it is there in 200 s.
_PATIENCE = 900.0

_NUMBERS = re.compile(r"(\d+)\.(\d+)")


class Contact:
    """A connection, and the receiver of what arrives on it, until the agent's interpreter runs.

    Args:
        node: The node's name.
        receiver: Is told what arrives.
        scratch: Where the node is to keep what it is sent; empty: where it thinks best.
        data: What was written first: the payload, then what follows it.
        pack: Returns this side's interpreter, in a thread; default: `pack_interpreter`.
    """

    def __init__(
        self,
        node: str,
        receiver: Receiver,
        scratch: str,
        data: Sequence[bytes],
        pack: Callable[[], Interpreter] | None = None,
    ) -> None:
        self._node = node
        self._receiver = receiver
        self._scratch = scratch
        self._data = data
        self._pack = pack or _pack_own
        self._opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._said: bytearray | None = bytearray()  # None: the agent speaks
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._helping: asyncio.Task[None] | None = None
        self._began = 0.0
        self._room = asyncio.Event()
        self._room.set()
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "preparing" if self.preparing else "open"
        return f"<Contact with {self._node}, {state}>"

    def join(self, connection: Connection) -> Contact:
        """Take the connection that was opened with this as its receiver."""
        self._opened.set_result(connection)
        return self

    @property
    def carrier(self) -> Connection:
        """The connection that carries it."""
        return self._opened.result()

    @property
    def preparing(self) -> bool:
        """Whether the node is getting what the agent needs, which takes as long as it takes."""
        helping = self._helping is not None and not self._helping.done()
        return helping and time.monotonic() - self._began < _PATIENCE

    # --- base.Connection

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        self.carrier.write(parts)

    def abort(self) -> None:
        if self._helping is not None:
            self._helping.cancel()
        self.carrier.abort()

    async def wait_closed(self) -> None:
        if self._helping is not None:
            await asyncio.wait({self._helping})
        await self.carrier.wait_closed()

    # --- base.Receiver

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        if self._over:
            return
        if self._helping is not None and self._said is not None:
            self._said += data
            self._take_lines()
            return
        if self._said is not None:
            self._said += data
            at = self._said.find(f"{bootstrap.NONE}\n".encode())
            if at >= 0:
                del self._said[: at + len(bootstrap.NONE) + 1]
                self._began = time.monotonic()
                self._helping = asyncio.get_running_loop().create_task(self._help())
                return
            if len(self._said) > _NOISE or MAGIC in self._said:
                self._said = None
        self._receiver.data_received(data)

    def stderr_received(self, data: bytes) -> None:
        if not self._over:
            self._receiver.stderr_received(data)

    def pause_writing(self) -> None:
        self._room.clear()
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._room.set()
        self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        if self._helping is not None:
            self._helping.cancel()
        self._receiver.connection_lost(exc)

    # --- help

    def _take_lines(self) -> None:
        """Take the lines that a script has printed; what follows `install.GO` is the agent's."""
        while self._said:
            line, newline, rest = bytes(self._said).partition(b"\n")
            if not newline:
                return
            text = line.decode("utf-8", "replace")
            self._said = bytearray(rest)
            self._lines.put_nowait(text)
            if text == install.GO:
                self._said = None
                if rest:
                    self._receiver.data_received(rest)

    async def _help(self) -> None:
        """Get an interpreter to run on the node, or say why there will be none."""
        connection = await self._opened
        try:
            self._send(connection, install.look_script())
            facts = install.read_facts(await self._lines_until(install.DONE))
            kernel = facts.machine.partition(" ")[0]
            if kernel and (why_not := why_no_node(kernel)):
                raise NodeError(f"node {self._node}: {why_not}", node=self._node)
            length = len(self._data[0])
            found = facts.fitting
            if found is not None:
                self._send(connection, install.run_script(found.path, length))
            else:
                await self._install(connection, facts, length)
            await self._lines_until(install.GO)
            connection.write([b"".join(self._data)])
        except NodeError as exc:
            self._refuse(connection, exc)
        except OSError as exc:
            error = NodeError(
                f"node {self._node}: the farm's interpreter cannot be read: {exc}", node=self._node
            )
            error.__cause__ = exc
            self._refuse(connection, error)

    def _refuse(self, connection: Connection, error: NodeError) -> None:
        self._over = True
        connection.abort()
        self._receiver.connection_lost(error)

    async def _install(self, connection: Connection, facts: install.Facts, length: int) -> None:
        try:
            interpreter = await asyncio.to_thread(self._pack)
        except DependencyError as exc:
            raise self._refusal(facts, str(exc)) from exc
        if why := why_not(interpreter, facts):
            raise self._refusal(facts, why)
        script = install.install_script(
            interpreter.digest,
            interpreter.sha256,
            interpreter.size,
            interpreter.program,
            scratch=self._scratch,
            unpacker=next((each.path for each in facts.pythons if each.unpacks), ""),
            length=length,
        )
        self._send(connection, script)
        lines = await self._lines_until(install.SEND, install.GO)
        if lines[-1] == install.GO:
            self._lines.put_nowait(install.GO)  # it has it
            return
        with (
            open(interpreter.path, "rb") as file,
            contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content,
        ):
            for at in range(0, len(content), _PIECE):
                connection.write([content[at : at + _PIECE]])
                await asyncio.sleep(0)
                await self._room.wait()

    def _send(self, connection: Connection, script: str) -> None:
        data = script.encode("utf-8", "surrogateescape")
        connection.write([b"%d\n" % len(data) + data])

    async def _lines_until(self, *last: str) -> list[str]:
        lines: list[str] = []
        while not lines or lines[-1] not in last:
            lines.append(await self._lines.get())
        return lines

    def _refusal(self, facts: install.Facts, why: str) -> NodeError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        pythons = ", ".join(f"{each.version} ({each.path})" for each in facts.pythons)
        return NodeError(
            f"node {self._node}: there is no Python {version}, the farm's own version; found:"
            f" {pythons or 'no Python at all'}, on {facts.machine}, {facts.libc or 'unknown libc'}."
            f" The farm's own cannot be sent: {why}. Install Python {version} there, name one with"
            " SSHNode(python=...), or run the farm under a version that the node has",
            node=self._node,
        )


def _pack_own() -> Interpreter:
    # Most farms never need it, and what it needs takes 60 ms to import.
    from ..environments.interpreter import pack_interpreter

    return pack_interpreter()


def why_not(interpreter: Interpreter, facts: install.Facts) -> str:
    """Return why an interpreter does not run on a node, or an empty string.

    What a node does not tell of its C library, starting the interpreter there will tell.
    """
    if facts.machine != f"Linux {interpreter.machine}":
        return f"it is for Linux {interpreter.machine}"
    if "musl" in facts.libc:
        return "it needs the GNU C library"
    version = _NUMBERS.search(facts.libc)
    needed = interpreter.glibc
    if version is not None and (int(version[1]), int(version[2])) < needed:
        return f"it needs the GNU C library {needed[0]}.{needed[1]}"
    return ""
