"""Opening an SSH connection: configuration, jump hosts, host keys, patience.

Imports asyncssh, so only `ssh.SSHNode.connect` imports this, when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from ..errors import NodeError
from .base import Connection, Receiver
from .hosts import parse_node
from .ssh import SSHNode, paths
from .ssh_errors import Hop, explain
from .ssh_session import SSHSession

# From the first packet to the end of authentication, of each hop (s), unless the
# configuration says `ConnectTimeout`.
CONNECT_TIMEOUT = 20.0

# How many handshakes may be on their way to one server. A stock sshd (MaxStartups
# 10:30:100) begins to refuse at random above 10 that are not authenticated yet.
HANDSHAKES = 8

# More jump hosts in a row than anybody has.
MOST_JUMPS = 8

# How often a connection that was dropped before authentication is tried again, and
# how long after the first time (s), doubled each time.
RETRIES = 5
BACKOFF = 0.25

# AES-GCM runs on the processor's own instructions: measured 394 MB/s, against a
# quarter of that with the default order, which puts ChaCha20 first.
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"

# Kinds of host keys to ask for besides those that are known.
HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-256",
    "rsa-sha2-512",
)

# Where OpenSSH looks when nothing is configured; asyncssh knows the first only.
KNOWN_HOSTS = (
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
)


async def start(
    node: SSHNode, command: str, receiver: Receiver, data: Sequence[bytes]
) -> Connection:
    """Log in to a node, start a command there and send it ``data``.

    Raises:
        NodeError: If that fails; says what to do.
    """
    connection = await _Opening(node).open()
    try:
        return await SSHSession.start(node, connection, command, receiver, data)
    except (asyncssh.Error, OSError) as exc:
        raise NodeError(
            f"node {node.name}: logged in, but its SSH server refuses to run a command:"
            f" {exc}; check that the account's shell works and that sshd allows sessions",
            node=node.name,
        ) from exc


class _Client(asyncssh.SSHClient):
    """Watches a handshake: how far it came, and what host key was shown."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self._hop.shown_key = key
        return False  # only known_hosts can vouch for it

    def begin_auth(self, username: str) -> None:
        self._hop.authenticating = True

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self._hop.banner = msg


@dataclass
class _Opening:
    """One node's connection being opened, through any jump hosts."""

    node: SSHNode
    hops: list[asyncssh.SSHClientConnection] = field(default_factory=list)

    async def open(self) -> list[asyncssh.SSHClientConnection]:
        """Return the connections: to each jump host in order, then to the node."""
        node = self.node
        try:
            await self._reach(node.host, {"username": node.user, "port": node.port}, node.jump)
        except BaseException:
            for connection in reversed(self.hops):
                connection.abort()
            raise
        return self.hops

    async def _reach(
        self,
        host: str,
        arguments: dict[str, Any],
        jump: str | None,
        *,
        via: str = "",
        depth: int = 0,
    ) -> None:
        """Add a connection to ``host`` to the hops, after those to its own jump hosts.

        Args:
            host: As given, or as written in a jump.
            arguments: What is given besides; ``None`` leaves it to the configuration.
            jump: The jump hosts; ``None``: as configured.
            via: What it is reached through already.
            depth: How many hosts have led to this one.
        """
        node = self.node
        given = {key: value for key, value in arguments.items() if value is not None}
        config = paths(node.config)
        if config is not None:
            given["config"] = list(config)
        hop = Hop(node.name, _asked(host, arguments, config, jump), host)
        try:
            options = await asyncssh.SSHClientConnectionOptions.construct(
                host=host, client_keys=None, **given
            )
        except (asyncssh.Error, ValueError, OSError) as exc:
            raise explain(exc, hop) from exc
        hop.host, hop.port, hop.user = options.host, options.port, options.username
        hop.config = config[0] if config else ""
        stated = _known_hosts(node, options)
        hop.known_hosts = [file for file in stated if os.path.isfile(file)]
        hop.known_hosts_file = stated[0]
        if depth > MOST_JUMPS:
            raise NodeError(
                f"node {node.name}: its jump hosts go round in a circle at {host}; let"
                " ProxyJump in the SSH configuration not apply to the jump host itself",
                node=node.name,
            )
        hop.via = via
        for each in _hosts_of(options.tunnel if jump is None else jump):
            last = parse_node(each)
            assert isinstance(last, SSHNode)
            await self._reach(
                last.host,
                {"username": last.user, "port": last.port},
                # Only the first of a list goes its own way; the next ones go through it.
                "" if self.hops else None,
                via=hop.via,
                depth=depth + 1,
            )
            hop.via = f"{hop.via},{each}".lstrip(",")
        self.hops.append(await self._shake_hands(hop, options))

    async def _shake_hands(
        self, hop: Hop, options: asyncssh.SSHClientConnectionOptions
    ) -> asyncssh.SSHClientConnection:
        """Return a connection, trying again while the server drops it for being too busy."""
        tunnel = self.hops[-1] if self.hops else None
        for attempt in range(RETRIES + 1):
            hop.authenticating = False
            try:
                async with _handshakes(hop.host, hop.port):
                    return await self._connect(hop, options, tunnel)
            except (asyncssh.ConnectionLost, ConnectionError) as exc:
                if isinstance(exc, ConnectionRefusedError):
                    raise explain(exc, hop) from exc
                if hop.authenticating or attempt == RETRIES:
                    raise explain(exc, hop) from exc
            except (asyncssh.Error, OSError, ValueError) as exc:
                raise explain(exc, hop) from exc
            # Outside the semaphore: others may try meanwhile.
            await asyncio.sleep(BACKOFF * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    async def _connect(
        self,
        hop: Hop,
        options: asyncssh.SSHClientConnectionOptions,
        tunnel: asyncssh.SSHClientConnection | None,
    ) -> asyncssh.SSHClientConnection:
        chosen = _identities(self.node, options) | _host_key_algorithms(hop, options)
        if options.config.get("Ciphers") is None:
            chosen["encryption_algs"] = CIPHERS
        timeout = options.connect_timeout or CONNECT_TIMEOUT
        connection = await asyncssh.connect(
            options.orig_host,
            options=options,
            config=None,
            tunnel=tunnel,
            known_hosts=hop.known_hosts or b"",
            client_factory=lambda: _Client(hop),
            compression_algs=None,
            agent_forwarding=False,
            x11_forwarding=False,
            connect_timeout=timeout,
            login_timeout=timeout,
            **chosen,
        )
        if tunnel is not None:
            connection.set_tunnel(tunnel)  # closes it, when it closes itself
        return connection


def _asked(
    host: str, arguments: dict[str, Any], config: Sequence[str] | None, jump: str | None
) -> list[str]:
    """Return the arguments with which ``ssh`` would go the same way."""
    asked = ["-F", config[0]] if config else []
    if jump:
        asked += ["-o", f"ProxyJump={jump}"]
    if arguments["port"]:
        asked += ["-p", str(arguments["port"])]
    return [*asked, f"{arguments['username']}@{host}" if arguments["username"] else host]


def _known_hosts(node: SSHNode, options: asyncssh.SSHClientConnectionOptions) -> list[str]:
    """Return the files of host keys to trust, whether they exist or not.

    Never asyncssh's ``None``, which would trust everybody.
    """
    files: Sequence[str]
    stated = paths(node.known_hosts)
    if stated is not None:
        files = stated
    elif options.known_hosts is None:  # `UserKnownHostsFile none`
        files = KNOWN_HOSTS[2:]
    else:
        files = list(options.known_hosts) or KNOWN_HOSTS  # type: ignore[arg-type]
    return [os.path.expanduser(file) for file in files or KNOWN_HOSTS]


def _host_key_algorithms(hop: Hop, options: asyncssh.SSHClientConnectionOptions) -> dict[str, Any]:
    """Return which host keys to ask for: first those of the kinds that are known.

    asyncssh asks for no others, so that a server whose keys have changed in kind hangs up
    and nobody learns why.
    """
    name = options.host_key_alias or hop.host
    known = asyncssh.match_known_hosts(hop.known_hosts or b"", name, "", hop.port)
    keys, authorities = known[:2]
    hop.known_keys = bool(keys or authorities)
    if not keys or authorities or options.config.get("HostKeyAlgorithms") is not None:
        return {}
    kinds = dict.fromkeys(kind.decode() for key in keys for kind in key.sig_algorithms)
    return {"server_host_key_algs": ",".join([*kinds, *HOST_KEYS])}


def _identities(node: SSHNode, options: asyncssh.SSHClientConnectionOptions) -> dict[str, Any]:
    """Return which keys to offer, as OpenSSH would.

    asyncssh fails on a configured key that is not there, and does not ask the SSH agent
    for a configured one that is encrypted; OpenSSH passes over the first and knows the
    second by the public key beside it.
    """
    stated = paths(node.keys)
    if stated is not None:
        files, only = list(stated), True
    else:
        configured: Any = options.config.get("IdentityFile", ())
        files = [os.path.expanduser(file) for file in configured]
        files = [file for file in files if os.path.exists(file)]
        only = bool(options.config.get("IdentitiesOnly"))
        if not configured:
            return {"client_keys": ()}
    chosen: dict[str, Any] = {"client_keys": files, "ignore_encrypted": True}
    if only:
        public = [f"{file}.pub" for file in files if os.path.isfile(f"{file}.pub")]
        agent = options.config.get("IdentityAgent") or os.environ.get("SSH_AUTH_SOCK")
        if public and agent:
            chosen["agent_identities"] = public
        else:
            chosen["agent_path"] = None
            chosen["ignore_encrypted"] = stated is None
    return chosen


def _hosts_of(jumps: object) -> list[str]:
    if not isinstance(jumps, str) or jumps.strip().lower() in ("", "none"):
        return []
    # OpenSSH also takes ssh://[user@]host[:port].
    return [each.strip().removeprefix("ssh://").rstrip("/") for each in jumps.split(",")]


_servers: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[str, int], asyncio.Semaphore]
] = weakref.WeakKeyDictionary()


def _handshakes(host: str, port: int) -> contextlib.AbstractAsyncContextManager[None]:
    """Return what to hold during a handshake with a server: `HANDSHAKES` at a time."""
    servers = _servers.setdefault(asyncio.get_running_loop(), {})
    return servers.setdefault((host, port), asyncio.Semaphore(HANDSHAKES))
