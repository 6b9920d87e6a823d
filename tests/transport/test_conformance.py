"""What every transport promises, for each of them: see `afarm.transport.base`."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from afarm.errors import NodeError
from afarm.transport.base import Connection, Node
from afarm.transport.bootstrap import NO_PYTHON
from afarm.transport.command import CommandNode
from afarm.transport.local import LocalNode
from afarm.transport.memory import MemoryNode
from afarm.transport.ssh import SSHNode

from .peer import PROGRAM, MemoryPeer
from .recorder import Recorder, wait_exists


@dataclass
class Line:
    """A way to a peer, and how to open it."""

    kind: str
    node: Node

    async def open(self, *first: bytes) -> tuple[Connection, Recorder]:
        """Connect, send ``first`` with the program, and return both sides."""
        recorder = Recorder()
        program = None if self.kind == "memory" else PROGRAM
        return await self.node.connect(recorder, first, program=program), recorder


@pytest.fixture(params=["memory", "local", "command", "command-shell", "ssh"])
def line(request: pytest.FixtureRequest) -> Line:
    kind = request.param
    node: Node
    if kind == "memory":
        node = MemoryNode(MemoryPeer, chunk=50_000)
    elif kind == "local":
        node = LocalNode()
    elif kind == "command":
        node = CommandNode(["env", "AFARM_TEST=1"], python=sys.executable)
    elif kind == "command-shell":
        node = CommandNode(["sh", "-c"], shell=True, python=sys.executable)
    else:
        sshd = request.getfixturevalue("sshd")
        node = SSHNode("sshd", config=sshd.config, python=sys.executable)
    return Line(kind, node)


async def close(connection: Connection) -> None:
    connection.abort()
    async with asyncio.timeout(30):
        await connection.wait_closed()


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [1, 255, 65_535, 65_536, 65_537, 1 << 20])
async def test_bytes_of_any_size_arrive_as_they_were_written(line: Line, size: int) -> None:
    connection, recorder = await line.open(b"echo\n")
    data = some_bytes(size)
    connection.write([data])
    assert await recorder.wait_received(size) == data
    await close(connection)


@pytest.mark.slow
async def test_64_megabytes_pass_both_ways(line: Line) -> None:
    connection, recorder = await line.open(b"echo\n")
    data = some_bytes(64 << 20)
    for start in range(0, len(data), 1 << 20):
        connection.write([memoryview(data)[start : start + (1 << 20)]])
        await asyncio.sleep(0)
    echoed = await recorder.wait_received(len(data))
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(data).digest()
    await close(connection)


async def test_parts_of_unlike_size_keep_their_order(line: Line) -> None:
    connection, recorder = await line.open(b"echo\n")
    sizes = [3, 0, 70_000, 1, 1, 200_000, 65_536, 65_535, 5]
    parts: list[bytes | memoryview] = [
        memoryview(bytearray(some_bytes(size))) if size % 2 else some_bytes(size) for size in sizes
    ]
    expected = b"".join(parts)
    connection.write(parts)
    connection.write([])
    connection.write([b"end"])
    assert await recorder.wait_received(len(expected) + 3) == expected + b"end"
    await close(connection)


async def test_the_first_frames_follow_the_program_without_a_gap(line: Line) -> None:
    connection, recorder = await line.open(b"say one\n", b"say ", b"two\necho\nthree")
    assert await recorder.wait_received(11) == b"onetwothree"
    await close(connection)


async def test_noise_in_front_of_the_agent_is_passed_on(line: Line) -> None:
    connection, recorder = await line.open(b"say Welcome to lab1!\necho\n")
    connection.write([b"\x00\xafframes"])
    assert await recorder.wait_received(24) == b"Welcome to lab1!\x00\xafframes"
    await close(connection)


async def test_standard_error_is_kept_apart(line: Line) -> None:
    connection, recorder = await line.open(b"complain oh\nsay fine\necho\n")
    await recorder.wait_until(lambda: recorder.stderr == b"oh" and bytes(recorder.data) == b"fine")
    await close(connection)


async def test_a_flood_arrives_whole_while_nothing_is_written(line: Line) -> None:
    connection, recorder = await line.open(b"flood 3000001\necho\n")
    received = await recorder.wait_received(3_000_001)
    assert received == (bytes(range(256)) * 11_719)[:3_000_001]
    await close(connection)


async def test_writing_pauses_while_nobody_reads_and_resumes(line: Line, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    connection, recorder = await line.open(f"wait {gate}\necho\n".encode())
    piece = some_bytes(1 << 20)
    count = 0
    while "pause" not in recorder.calls:
        assert count < 64, "64 MiB are queued, and nobody said stop"
        connection.write([piece])
        count += 1
        await asyncio.sleep(0.001)
    assert recorder.calls.count("resume") < recorder.calls.count("pause")
    gate.touch()
    await recorder.wait_until(lambda: "resume" in recorder.calls)
    assert await recorder.wait_received(count << 20) == piece * count
    await close(connection)


async def test_the_agent_sees_the_end_of_its_input_when_the_farm_aborts(
    line: Line, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    connection, recorder = await line.open(f"say ready\nmark {mark}\n".encode())
    await recorder.wait_received(5)
    connection.abort()
    await wait_exists(mark)
    assert await recorder.wait_lost() is None
    async with asyncio.timeout(30):
        await connection.wait_closed()


async def test_an_agent_that_ends_in_good_order_leaves_no_error(line: Line) -> None:
    connection, recorder = await line.open(b"say bye\nexit 0\n")
    assert await recorder.wait_lost() is None
    assert bytes(recorder.data) == b"bye"
    await close(connection)


async def test_an_exit_code_becomes_the_reason_of_the_loss(line: Line) -> None:
    connection, recorder = await line.open(b"exit 3\n")
    reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    assert "exited with code 3" in str(reason)
    await close(connection)


async def test_a_killed_agent_becomes_the_reason_of_the_loss(line: Line) -> None:
    connection, recorder = await line.open(b"die\n")
    reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    # A shell in between reports a signal as 128 and its number.
    assert "killed by SIGKILL" in str(reason) or "exited with code 137" in str(reason)
    await close(connection)


async def test_a_loss_is_reported_once_and_last_whatever_comes_after(line: Line) -> None:
    connection, recorder = await line.open(b"echo\n")
    connection.write([b"x"])
    await recorder.wait_received(1)
    connection.write([some_bytes(1 << 20)])
    connection.abort()
    connection.abort()
    connection.write([b"too late"])
    await recorder.wait_lost()
    async with asyncio.timeout(30):
        await connection.wait_closed()
        await connection.wait_closed()
    connection.write([b"much too late"])
    connection.abort()
    await asyncio.sleep(0)
    assert recorder.lost == [None]


async def test_a_receiver_that_fails_loses_the_connection_and_nothing_else(line: Line) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("cannot take this")

    loop_errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: loop_errors.append(about))
    recorder = Failing()
    program = None if line.kind == "memory" else PROGRAM
    connection = await line.node.connect(recorder, [b"say hello\necho\n"], program=program)
    reason = await recorder.wait_lost()
    assert "cannot take this" in str(reason)
    await close(connection)


async def test_several_connections_to_one_node_do_not_mix(line: Line) -> None:
    opened = await asyncio.gather(*(line.open(b"echo\n") for _ in range(5)))
    for number, (connection, _) in enumerate(opened):
        connection.write([b"%d" % number * 1000])
    for number, (connection, recorder) in enumerate(opened):
        assert await recorder.wait_received(1000) == b"%d" % number * 1000
        await close(connection)


def test_a_node_says_what_was_stated_of_it(line: Line) -> None:
    assert line.node.name
    assert line.node.stated.cores is None
    assert line.node.in_place is (line.kind in ("memory", "local"))


FAILURES: Sequence[tuple[Node, str]] = [
    (CommandNode(["no-such-program-here"]), "cannot start 'no-such-program-here'"),
    (CommandNode(["/"]), "cannot start '/'"),
]


@pytest.mark.parametrize(("node", "words"), FAILURES, ids=["missing", "folder"])
async def test_a_program_that_cannot_be_started_is_named(node: Node, words: str) -> None:
    recorder = Recorder()
    with pytest.raises(NodeError, match=words):
        await node.connect(recorder, [], program=PROGRAM)
    assert recorder.calls == []


async def test_a_node_without_python_says_so_and_what_to_do() -> None:
    recorder = Recorder()
    # It has not even the programs that receiving one takes.
    said = f"echo 'afarm: no cpython-311 here; found: no Python at all' >&2; exit {NO_PYTHON}"
    node = CommandNode(["/bin/sh", "-c", said])
    connection = await node.connect(recorder, [], program=PROGRAM)
    reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    assert "no cpython-311 here; found: no Python at all" in str(reason)
    assert "python=" in str(reason)
    await close(connection)
