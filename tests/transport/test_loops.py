"""Transports under other event loops, and in loops outside the main thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable

import pytest

from afarm.transport import process
from afarm.transport.base import Node
from afarm.transport.command import CommandNode
from afarm.transport.local import LocalNode
from afarm.transport.memory import MemoryNode
from afarm.transport.ssh import SSHNode

from .peer import PROGRAM, MemoryPeer
from .recorder import PATIENCE, Recorder

Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request: pytest.FixtureRequest) -> Factory:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop")
    new: Factory = uvloop.new_event_loop
    return new


@pytest.fixture(params=["memory", "local", "command", "ssh"])
def node(request: pytest.FixtureRequest) -> Node:
    if request.param == "memory":
        return MemoryNode(MemoryPeer)
    if request.param == "local":
        return LocalNode()
    if request.param == "command":
        return CommandNode(["env"], python=sys.executable)
    sshd = request.getfixturevalue("sshd")
    return SSHNode("sshd", config=sshd.config, python=sys.executable)


async def exchange(node: Node) -> None:
    """Send and receive a megabyte, lose one connection and drop another."""
    program = None if isinstance(node, MemoryNode) else PROGRAM
    async with asyncio.timeout(PATIENCE):
        recorder = Recorder()
        connection = await node.connect(recorder, [b"complain oh\necho\n"], program=program)
        data = bytes(range(256)) * 4096
        connection.write([data])
        assert await recorder.wait_received(len(data)) == data
        await recorder.wait_until(lambda: recorder.stderr == b"oh")
        connection.abort()
        await connection.wait_closed()
        assert recorder.lost == [None]
        recorder = Recorder()
        connection = await node.connect(recorder, [b"exit 3\n"], program=program)
        assert "code 3" in str(await recorder.wait_lost())
        await connection.wait_closed()


def run(factory: Factory, node: Node) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(exchange(node))


def test_any_loop_will_do(factory: Factory, node: Node) -> None:
    run(factory, node)


def test_a_loop_outside_the_main_thread_will_do(factory: Factory, node: Node) -> None:
    failures: list[BaseException] = []

    def target() -> None:
        try:
            run(factory, node)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(2 * PATIENCE)
    assert not thread.is_alive()
    assert failures == []


def test_what_a_program_said_before_it_exited_arrives_although_writing_to_it_fails(
    factory: Factory,
) -> None:
    async def leave() -> None:
        async with asyncio.timeout(PATIENCE):
            recorder = Recorder()
            argv = ["/bin/sh", "-c", "echo too full; exit 3"]
            connection = await process.start("sh", argv, recorder, [b"x"])
            assert isinstance(connection, process.ProcessConnection)
            # Without a turn of the loop, so that the write is the first to notice.
            with contextlib.suppress(ChildProcessError):  # it was reaped already
                os.waitid(os.P_PID, connection._process.pid, os.WEXITED | os.WNOWAIT)
            connection.write([b"x"])
            assert "code 3" in str(await recorder.wait_lost())
            assert bytes(recorder.data) == b"too full\n"
            await connection.wait_closed()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leave())
