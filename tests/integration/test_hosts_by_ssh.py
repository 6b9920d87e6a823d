"""Transports between hosts with networks, disks and accounts of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from afarm.errors import NodeError
from afarm.transport import ssh_connect
from afarm.transport.ssh import SSHNode
from tests.hosts import Testbed
from tests.transport.peer import PROGRAM
from tests.transport.recorder import Recorder

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def greeting(node: SSHNode, count: int) -> tuple[bytes, bytes]:
    """Return the first bytes that come from a node that says "fine", and its standard error."""
    recorder = Recorder()
    connection = await node.connect(recorder, [b"say fine\necho\n"], program=PROGRAM)
    received = await recorder.wait_received(count)
    connection.abort()
    async with asyncio.timeout(30):
        await connection.wait_closed()
    return received, recorder.stderr


async def test_each_host_is_reached_and_is_another_machine(testbed: Testbed) -> None:
    nodes = testbed.up(2)
    assert await asyncio.gather(*(greeting(node, 4) for node in nodes)) == [(b"fine", b"")] * 2
    assert [testbed.shell(node.host, "hostname").strip() for node in nodes] == ["h1", "h2"]


async def test_a_host_is_reached_through_another(testbed: Testbed) -> None:
    testbed.up(2)
    assert await greeting(testbed.node("h2", jump="h1"), 4) == (b"fine", b"")


@pytest.mark.parametrize("shell", ["dash", "bash", "tcsh", "fish"])
async def test_an_account_may_have_any_login_shell(testbed: Testbed, shell: str) -> None:
    testbed.up(1)
    path = testbed.shell("h1", f"command -v {shell} || true").strip()
    if not path:
        pytest.skip(f"there is no {shell} here")
    testbed.shell("h1", f"usermod --shell {path} farm")
    try:
        assert await greeting(testbed.node("h1"), 4) == (b"fine", b"")
    finally:
        testbed.shell("h1", "usermod --shell /bin/bash farm")


async def test_a_bashrc_that_prints_is_noise_and_no_more(testbed: Testbed) -> None:
    testbed.up(1)
    testbed.shell("h1", "echo 'echo Hello; echo careful >&2' > /home/farm/.bashrc")
    try:
        assert await greeting(testbed.node("h1"), 10) == (b"Hello\nfine", b"careful\n")
    finally:
        testbed.shell("h1", "rm /home/farm/.bashrc")


async def test_an_account_without_a_shell_shows_what_it_was_told(testbed: Testbed) -> None:
    testbed.up(1)
    testbed.shell("h1", "usermod --shell /usr/sbin/nologin farm")
    recorder = Recorder()
    try:
        connection = await testbed.node("h1").connect(recorder, [], program=PROGRAM)
        reason = await recorder.wait_lost()
        await connection.wait_closed()
    finally:
        testbed.shell("h1", "usermod --shell /bin/bash farm")
    assert isinstance(reason, NodeError)
    assert "exited with code 1" in str(reason)
    assert bytes(recorder.data) == b"This account is currently not available.\n"


async def test_a_host_that_is_cut_off_cannot_be_reached_in_time(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed.up(2)
    monkeypatch.setattr(ssh_connect, "CONNECT_TIMEOUT", 0.5)
    testbed.run("cut", "h2")
    try:
        with pytest.raises(NodeError, match="did not answer in time"):
            await testbed.node("h2").connect(Recorder(), [], program=PROGRAM)
    finally:
        testbed.run("heal", "h2")
    monkeypatch.undo()
    assert (await greeting(testbed.node("h2"), 4))[0] == b"fine"


async def test_a_connection_to_a_host_that_is_cut_off_can_still_be_dropped(
    testbed: Testbed,
) -> None:
    testbed.up(2)
    recorder = Recorder()
    connection = await testbed.node("h2").connect(recorder, [b"say on\necho\n"], program=PROGRAM)
    await recorder.wait_received(2)
    testbed.run("cut", "h2")
    try:
        connection.write([bytes(4 << 20)])
        connection.abort()
        async with asyncio.timeout(5):
            assert await recorder.wait_lost() is None
            await connection.wait_closed()
    finally:
        testbed.run("heal", "h2")


async def test_keepalive_of_the_configuration_notices_a_silent_cut(
    testbed: Testbed, tmp_path: Any
) -> None:
    testbed.up(2)
    config = tmp_path / "config"
    config.write_text(
        testbed.config.read_text() + "  ServerAliveInterval 1\n  ServerAliveCountMax 2\n"
    )
    recorder = Recorder()
    node = SSHNode("h2", config=config)
    connection = await node.connect(recorder, [b"say on\necho\n"], program=PROGRAM)
    await recorder.wait_received(2)
    testbed.run("cut", "h2")
    try:
        reason = await recorder.wait_lost()
        await connection.wait_closed()
    finally:
        testbed.run("heal", "h2")
    assert "not responding to keepalive" in str(reason)


async def test_a_host_that_crashes_and_boots_is_reached_again(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    testbed.up(2)
    monkeypatch.setattr(ssh_connect, "CONNECT_TIMEOUT", 0.5)
    testbed.run("crash", "h2")
    try:
        with pytest.raises(NodeError):
            await testbed.node("h2").connect(Recorder(), [], program=PROGRAM)
    finally:
        testbed.run("boot", "h2")
    monkeypatch.undo()
    assert (await greeting(testbed.node("h2"), 4))[0] == b"fine"
