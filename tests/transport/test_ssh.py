"""SSH against a real OpenSSH server: what is honoured, and what each failure says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from afarm.errors import NodeError
from afarm.transport import ssh_connect
from afarm.transport.ssh import SSHNode
from tests.sshd import Sshd, user

from .peer import PROGRAM
from .recorder import Recorder

StartSshd = Callable[..., Sshd]

pytestmark = pytest.mark.integration


def node_at(sshd: Sshd, **arguments: Any) -> SSHNode:
    return SSHNode("sshd", **{"config": sshd.config, "python": sys.executable, **arguments})


@contextlib.asynccontextmanager
async def connected(node: SSHNode, *first: bytes) -> AsyncIterator[tuple[Any, Recorder]]:
    recorder = Recorder()
    connection = await node.connect(recorder, first, program=PROGRAM)
    try:
        yield connection, recorder
    finally:
        connection.abort()
        async with asyncio.timeout(30):
            await connection.wait_closed()


async def failure(node: SSHNode) -> str:
    """Return what the error says when this node is connected."""
    recorder = Recorder()
    with pytest.raises(NodeError) as caught:
        await node.connect(recorder, [], program=PROGRAM)
    assert recorder.calls == []
    assert caught.value.node == node.name
    assert f"node {node.name}: " in str(caught.value)
    return str(caught.value)


async def assert_works(node: SSHNode) -> None:
    async with connected(node, b"say fine\necho\n") as (_, recorder):
        assert await recorder.wait_received(4) == b"fine"


def new_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path], check=True
    )
    return path


# What is honoured.


async def test_the_configuration_alone_is_enough(sshd: Sshd) -> None:
    await assert_works(SSHNode("sshd", config=sshd.config))


async def test_arguments_take_the_place_of_the_configuration(sshd: Sshd, tmp_path: Path) -> None:
    empty = tmp_path / "config"
    empty.touch()
    await assert_works(
        SSHNode(
            "127.0.0.1",
            port=sshd.port,
            user=user(),
            config=empty,
            keys=[sshd.folder / "id"],
            known_hosts=sshd.known_hosts,
            python=sys.executable,
        )
    )


async def test_aes_gcm_is_preferred_and_nothing_is_compressed(sshd: Sshd) -> None:
    async with connected(node_at(sshd), b"echo\n") as (connection, _):
        last = connection.carrier._hops[-1]
        assert last.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
        assert last.get_extra_info("send_compression") == "none"


async def test_configured_ciphers_are_kept(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text() + "  Ciphers aes256-ctr\n")
    async with connected(node_at(sshd, config=config), b"echo\n") as (connection, _):
        assert connection.carrier._hops[-1].get_extra_info("send_cipher") == "aes256-ctr"


async def test_jump_hosts_may_have_jump_hosts(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    base = sshd.config.read_text()
    config.write_text(
        base.replace("Host sshd\n", "Host inner\n  ProxyJump middle\n")
        + base.replace("Host sshd\n", "Host middle\n  ProxyJump outer\n")
        + base.replace("Host sshd\n", "Host outer\n")
    )
    node = SSHNode("inner", config=config, python=sys.executable)
    async with connected(node, b"say fine\necho\n") as (connection, recorder):
        assert await recorder.wait_received(4) == b"fine"
        assert len(connection.carrier._hops) == 3
    async with connected(SSHNode("outer", config=config), b"echo\n") as (connection, _):
        assert len(connection.carrier._hops) == 1


async def test_jump_takes_a_list_and_can_be_switched_off(sshd: Sshd, tmp_path: Path) -> None:
    async with connected(node_at(sshd, jump="sshd,sshd"), b"echo\n") as (connection, _):
        assert len(connection.carrier._hops) == 3
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text() + "  ProxyJump nowhere.invalid\n")
    await assert_works(node_at(sshd, config=config, jump=""))


async def test_jump_hosts_that_go_in_a_circle_are_an_error(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text() + "  ProxyJump sshd\n")
    assert "go round in a circle" in await failure(node_at(sshd, config=config))


async def test_configured_keys_that_are_not_there_are_passed_over(
    sshd: Sshd, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    text = sshd.config.read_text()
    config.write_text(text.replace("Host sshd\n", f"Host sshd\n  IdentityFile {tmp_path}/none\n"))
    await assert_works(node_at(sshd, config=config))


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="there is no ssh-agent here")
async def test_an_encrypted_key_is_used_through_the_ssh_agent(
    start_sshd: StartSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd = start_sshd()
    key = new_key(tmp_path / "key")
    other = new_key(tmp_path / "other")
    (sshd.folder / "authorized_keys").write_text(Path(f"{key}.pub").read_text())
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", tmp_path / "agent")
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        async with asyncio.timeout(10):
            while not (tmp_path / "agent").exists():
                await asyncio.sleep(0.005)
        subprocess.run(["ssh-add", "-q", other, key], check=True)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
        await assert_works(node_at(sshd, keys=key))
        config = tmp_path / "config"
        config.write_text(sshd.config.read_text().replace(f"{sshd.folder}/id", str(key)))
        await assert_works(node_at(sshd, config=config))
        assert "no key that was offered" in await failure(node_at(sshd, keys=other))
    finally:
        agent.terminate()
        await agent.wait()


LOGIN_SHELLS = ["sh", "bash", "dash", "tcsh", "csh", "fish"]


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
async def test_the_login_shell_may_be_any(shell: str, start_sshd: StartSshd) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"there is no {shell} here")
    sshd = start_sshd(f'ForceCommand exec {path} -c "$SSH_ORIGINAL_COMMAND"')
    await assert_works(node_at(sshd))
    await assert_works(node_at(sshd, python=None))


async def test_what_a_login_prints_comes_first(start_sshd: StartSshd) -> None:
    sshd = start_sshd(
        'ForceCommand echo Welcome; echo mind the gap >&2; exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    )
    async with connected(node_at(sshd), b"say magic\necho\n") as (_, recorder):
        assert await recorder.wait_received(13) == b"Welcome\nmagic"
        await recorder.wait_until(lambda: recorder.stderr == b"mind the gap\n")


# What failures say.


async def test_a_login_shell_that_fails_is_shown(start_sshd: StartSshd) -> None:
    sshd = start_sshd("ForceCommand echo This account is currently not available. >&2; exit 1")
    async with connected(node_at(sshd)) as (_, recorder):
        reason = str(await recorder.wait_lost())
    assert "exited with code 1" in reason
    assert "This account is currently not available." in reason


async def test_a_node_without_the_python_that_was_named(sshd: Sshd) -> None:
    async with connected(node_at(sshd, python="/no/such/python")) as (_, recorder):
        reason = str(await recorder.wait_lost())
    assert "there is no /no/such/python here" in reason
    assert "SSHNode(python=...)" in reason


async def test_an_unknown_host_key_is_refused_with_the_line_that_adds_it(
    sshd: Sshd, tmp_path: Path
) -> None:
    known = tmp_path / "known hosts"
    text = await failure(node_at(sshd, known_hosts=known))
    assert "is not known" in text
    assert "SHA256:" in text
    line = text[text.index("ssh-keyscan") :]
    assert line == f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {shlex.quote(str(known))}"
    subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True)
    await assert_works(node_at(sshd, known_hosts=known))


async def test_a_changed_host_key_is_refused_with_the_lines_that_replace_it(
    sshd: Sshd, tmp_path: Path
) -> None:
    other = new_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    public = " ".join(Path(f"{other}.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{sshd.port} {public}\n")
    text = await failure(node_at(sshd, known_hosts=known))
    assert "has changed" in text
    line = text[text.index("ssh-keygen") :]
    assert line.startswith(f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {known} && ssh-keyscan")
    subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True)
    await assert_works(node_at(sshd, known_hosts=known))


async def test_host_keys_of_another_kind_only_count_as_changed(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "", "-f", tmp_path / "other"],
        check=True,
    )
    known = tmp_path / "known_hosts"
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{sshd.port} {public}\n")
    assert "ssh-keyscan" in await failure(node_at(sshd, known_hosts=known))


@pytest.mark.parametrize("value", ["none", "/dev/null"])
async def test_known_hosts_switched_off_trusts_nobody(
    sshd: Sshd, tmp_path: Path, value: str
) -> None:
    config = tmp_path / "config"
    text = sshd.config.read_text().replace(str(sshd.known_hosts), value)
    config.write_text(text + "  StrictHostKeyChecking no\n")
    assert "is not known" in await failure(node_at(sshd, config=config))


async def test_a_refused_key_says_how_to_install_one(sshd: Sshd, tmp_path: Path) -> None:
    text = await failure(node_at(sshd, keys=new_key(tmp_path / "stranger")))
    assert f"refuses {user()}" in text
    assert "ssh-copy-id" in text
    assert "ssh-add" in text


async def test_a_key_file_that_is_not_there_is_named(sshd: Sshd) -> None:
    text = await failure(node_at(sshd, keys="/no/such/key"))
    assert "cannot read /no/such/key: No such file or directory" in text


async def test_a_closed_port_says_that_nothing_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        text = await failure(SSHNode("127.0.0.1", port=port))
    assert f"nothing listens at 127.0.0.1 port {port}" in text


async def test_a_name_that_nobody_knows_is_said_to_be_unknown() -> None:
    assert "'nowhere.invalid' is not known" in await failure(SSHNode("nowhere.invalid"))


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connect, "CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = await failure(SSHNode("127.0.0.1", port=silent.getsockname()[1]))
    assert "did not answer in time" in text


async def test_a_server_that_hangs_up_is_tried_again_and_then_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh_connect, "BACKOFF", 0.001)
    calls = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        text = await failure(SSHNode("127.0.0.1", port=port))
    assert "MaxStartups" in text
    assert calls == ssh_connect.RETRIES + 1


async def test_a_jump_host_that_cannot_reach_the_node_is_named(sshd: Sshd) -> None:
    node = SSHNode("127.0.0.1", port=1, config=sshd.config, jump="sshd")
    text = await failure(node)
    assert "the jump host sshd cannot reach 127.0.0.1:1" in text


async def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  Port many\n")
    text = await failure(SSHNode("127.0.0.1", config=config))
    assert str(config) in text
    assert "line 2" in text


async def test_a_server_without_sessions_is_named(start_sshd: StartSshd) -> None:
    sshd = start_sshd("MaxSessions 0")
    assert "refuses to run a command" in await failure(node_at(sshd))


# Losing it.


async def test_a_server_that_dies_is_a_loss_with_a_reason(start_sshd: StartSshd) -> None:
    sshd = start_sshd()
    async with connected(node_at(sshd), b"say ready\necho\n") as (_, recorder):
        await recorder.wait_received(5)
        for child in _children(sshd.process.pid):
            os.kill(child, 9)
        reason = await recorder.wait_lost()
    assert isinstance(reason, NodeError)
    assert "the connection was lost" in str(reason)


def _children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("needs /proc/PID/task/TID/children")
    direct = [int(each) for each in children.read_text().split()]
    return [each for child in direct for each in (child, *_children(child))]


async def test_an_agent_whose_children_hold_its_pipes_does_not_hold_up_its_end(
    sshd: Sshd,
) -> None:
    import zlib

    program = zlib.compress(
        b"import subprocess, sys\n"
        b"subprocess.Popen(['sleep', '30'])\n"
        b"print('ready', flush=True)\n"
        b"sys.exit(4)\n"
    )
    recorder = Recorder()
    connection = await node_at(sshd).connect(recorder, [], program=program)
    async with asyncio.timeout(10):
        reason = await recorder.wait_lost()
        await connection.wait_closed()
    assert "exited with code 4" in str(reason)


async def test_cancelling_a_connection_attempt_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived = asyncio.Event()
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        attempt = asyncio.create_task(SSHNode("127.0.0.1", port=port).connect(Recorder(), []))
        async with asyncio.timeout(10):
            await arrived.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await gone.wait()


# Many at once.


@pytest.mark.slow
async def test_many_nodes_behind_one_stock_server_all_connect(
    start_sshd: StartSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd = start_sshd("MaxStartups 10:30:100")
    most = 0
    busy = 0
    connect = ssh_connect._Opening._connect

    async def counted(self: Any, *arguments: Any) -> Any:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        try:
            return await connect(self, *arguments)
        finally:
            busy -= 1

    monkeypatch.setattr(ssh_connect._Opening, "_connect", counted)
    nodes = [node_at(sshd, name=f"node{number}") for number in range(24)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(assert_works(node) for node in nodes))
    assert most == ssh_connect.HANDSHAKES


@pytest.mark.slow
async def test_a_server_that_drops_connections_is_tried_again(start_sshd: StartSshd) -> None:
    # One unauthenticated connection at a time; everybody else is dropped.
    sshd = start_sshd("MaxStartups 1:100:1")
    async with asyncio.timeout(60):
        await asyncio.gather(*(assert_works(node_at(sshd)) for _ in range(3)))
