"""The first words with a node, spoken by a connection in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from afarm._wire.messages import MAGIC
from afarm.environments.interpreter import Interpreter
from afarm.errors import DependencyError, NodeError
from afarm.transport import bootstrap, install
from afarm.transport.contact import Contact
from tests.transport.recorder import Recorder

DATA = [b"payload", b"first"]
NONE = f"{bootstrap.NONE}\n".encode()


class FakeConnection:
    """Keeps what is written, and lets a test wait for it."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self._changed = asyncio.Event()

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        self.written += b"".join(parts)
        self._changed.set()

    def abort(self) -> None:
        self.aborted = True

    async def wait_closed(self) -> None:
        return

    async def wait_written(self, text: bytes) -> None:
        async with asyncio.timeout(30):
            while text not in self.written:
                self._changed.clear()
                await self._changed.wait()
        self.written = b""


def facts(*pythons: str, libc: str = "glibc 2.99", machine: str = "Linux x86_64") -> bytes:
    lines = [
        *(f"{install.PYTHON}{each}" for each in pythons),
        f"{install.MACHINE}{machine}",
        f"{install.LIBC}{libc}",
        install.DONE,
    ]
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture
def packed(tmp_path: Path) -> Interpreter:
    path = tmp_path / "packed"
    path.write_bytes(b"interpreter" * 100_000)
    size = path.stat().st_size
    return Interpreter("d", "s", size, 1, "bin/python", "x86_64", (2, 34), "3.11", str(path))


def begin(packed: Interpreter | None) -> tuple[Contact, FakeConnection, Recorder]:
    def pack() -> Interpreter:
        if packed is None:
            raise DependencyError("it is not to be had", names=["python"])
        return packed

    recorder, connection = Recorder(), FakeConnection()
    contact = Contact("h1", recorder, "", DATA, pack)
    return contact.join(connection), connection, recorder


async def test_a_node_that_has_a_python_is_left_alone() -> None:
    contact, connection, recorder = begin(None)
    for data in (b"hello\n", MAGIC, b"frames", NONE):
        contact.data_received(data)
    assert recorder.data == b"hello\n" + MAGIC + b"frames" + NONE
    assert not contact.preparing
    assert connection.written == b""


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_an_interpreter_is_sent_between_its_words(packed: Interpreter, step: int) -> None:
    contact, connection, recorder = begin(packed)

    def say(data: bytes) -> None:
        for at in range(0, len(data), step):
            contact.data_received(data[at : at + step])

    say(b"a banner\n" + NONE)
    assert contact.preparing
    await connection.wait_written(install.look_script().encode())
    say(facts("cpython-39 3.9.2 /usr/bin/python3"))
    await connection.wait_written(b"/usr/bin/python3 -I -S -c")  # it can unpack what comes
    contact.pause_writing()
    say(f"{install.SEND}\n".encode())
    await connection.wait_written(b"interpreter")
    contact.resume_writing()
    say(f"{install.GO}\n".encode() + MAGIC)
    await connection.wait_written(b"interpreterpayloadfirst")
    assert recorder.data.endswith(MAGIC)
    assert b"afarm-python" not in recorder.data
    assert recorder.lost == []
    await contact.wait_closed()
    assert not contact.preparing


async def test_a_node_that_has_it_already_is_sent_none(packed: Interpreter) -> None:
    contact, connection, _ = begin(packed)
    contact.data_received(NONE)
    await connection.wait_written(install.look_script().encode())
    contact.data_received(facts())
    await connection.wait_written(packed.digest.encode())
    contact.data_received(f"{install.GO}\n".encode())
    await connection.wait_written(b"payloadfirst")


async def test_a_fitting_python_that_is_found_late_is_taken() -> None:
    contact, connection, _ = begin(None)
    contact.data_received(NONE)
    await connection.wait_written(install.look_script().encode())
    contact.data_received(facts(f"{bootstrap.TAG} 3.11.99 /some where/python"))
    await connection.wait_written(b"exec '/some where/python' -I")
    contact.data_received(f"{install.GO}\n".encode())
    await connection.wait_written(b"payloadfirst")


@pytest.mark.parametrize("known", [True, False])
async def test_where_none_can_run_the_node_is_refused_once(
    packed: Interpreter, known: bool
) -> None:
    contact, connection, recorder = begin(packed if known else None)
    contact.data_received(NONE)
    await connection.wait_written(install.look_script().encode())
    contact.data_received(facts("pypy39 3.9.2 /opt/pypy3", libc="glibc 2.12"))
    reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    why = "it needs the GNU C library 2.34" if known else "it is not to be had"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert str(reason) == (
        f"node h1: there is no Python {version}, the farm's own version; found: 3.9.2 (/opt/pypy3),"
        f" on Linux x86_64, glibc 2.12. The farm's own cannot be sent: {why}. Install Python"
        f" {version} there, name one with SSHNode(python=...), or run the farm under a version that"
        " the node has"
    )
    assert connection.aborted
    contact.connection_lost(None)
    contact.data_received(b"late")
    assert recorder.lost == [reason]


@pytest.mark.parametrize("python", [(), (f"{bootstrap.TAG} 3.11.99 /usr/local/bin/python",)])
async def test_a_node_that_is_no_linux_is_not_told_to_install_a_python(
    packed: Interpreter, python: tuple[str, ...]
) -> None:
    contact, connection, recorder = begin(packed)
    contact.data_received(NONE)
    await connection.wait_written(install.look_script().encode())
    contact.data_received(facts(*python, machine="Darwin arm64"))
    reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    assert str(reason).startswith("node h1: it runs Darwin, and a node must run Linux")
    assert "install" not in str(reason)
    assert connection.aborted


async def test_a_node_that_is_lost_meanwhile_is_lost(packed: Interpreter) -> None:
    contact, connection, recorder = begin(packed)
    contact.data_received(NONE)
    await connection.wait_written(install.look_script().encode())
    contact.connection_lost(error := NodeError("it is gone", node="h1"))
    assert recorder.lost == [error]
    await contact.wait_closed()
    assert not contact.preparing


async def test_a_farm_that_goes_meanwhile_leaves_nothing_behind(packed: Interpreter) -> None:
    contact, connection, _ = begin(packed)
    contact.data_received(NONE)
    contact.abort()
    await contact.wait_closed()
    assert connection.aborted
    assert not contact.preparing
