"""What is wrong with an SSH connection, and the line that puts it right."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from dataclasses import dataclass, field

import asyncssh

from ..errors import NodeError


@dataclass
class Hop:
    """One server on the way to a node, as far as its handshake has come.

    Attributes:
        node: The name of the node that is being connected.
        asked: What ``ssh`` would be asked for: options and the host as given.
        host: The server's, after the configuration.
        port: The server's.
        user: Whom we log in as.
        via: The jump hosts before it, as they were written; empty: none.
        config: The configuration file, where it is not the default.
        known_hosts: The files its key is looked up in.
        known_hosts_file: The file that a new key belongs into.
        known_keys: Whether any key is known for it.
        shown_key: The host key it has shown that is in none of them.
        authenticating: Whether it has come to authentication.
        banner: What it said at that point.
    """

    node: str
    asked: list[str]
    host: str
    port: int = 22
    user: str = ""
    via: str = ""
    config: str = ""
    known_hosts: list[str] = field(default_factory=list)
    known_hosts_file: str = ""
    known_keys: bool = False
    shown_key: asyncssh.SSHKey | None = None
    authenticating: bool = False
    banner: str = ""

    @property
    def server(self) -> str:
        """The server for people: ``host`` or ``host:port``."""
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    def command(self, program: str) -> str:
        """Return a command line of ``ssh`` or ``ssh-copy-id`` for this server."""
        return shlex.join([program, *self.asked])


def explain(exc: BaseException, hop: Hop) -> NodeError:
    """Return the error that says what failed on the way to a node, and what to do."""
    if isinstance(exc, asyncssh.HostKeyNotVerifiable):
        text = _host_key(exc, hop)
    elif isinstance(exc, asyncssh.KeyExchangeFailed):
        text = f"{hop.server} and this side have no algorithm in common: {exc}"
    elif isinstance(exc, asyncssh.PermissionDenied):
        text = _permission(exc, hop)
    elif isinstance(exc, (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError)):
        when = "during" if hop.authenticating else "before"
        text = (
            f"{hop.server} closed the connection {when} authentication; its sshd may be"
            " overloaded (MaxStartups), restarting, or refuse this address: try"
            f" {hop.command('ssh')}"
        )
    elif isinstance(exc, (asyncssh.ChannelOpenError, OSError)):
        text = _unreachable(exc, hop)
    elif isinstance(exc, (asyncssh.KeyEncryptionError, asyncssh.KeyImportError)):
        text = f"a key cannot be used: {exc}; load it into the SSH agent: ssh-add FILE"
    elif isinstance(exc, asyncssh.DisconnectError):
        text = f"{hop.server} ended the connection: {exc.reason or exc}; try {hop.command('ssh')}"
    elif isinstance(exc, ValueError):
        text = f"the SSH configuration is not understood: {exc}"
    else:
        text = f"{hop.server}: {type(exc).__name__}: {exc}"
    return NodeError(f"node {hop.node}: {text}", node=hop.node)


def _host_key(exc: asyncssh.HostKeyNotVerifiable, hop: Hop) -> str:
    if "revoked" in str(exc):
        return f"the host key of {hop.server} is marked as revoked in {hop.known_hosts_file}"
    file = shlex.quote(hop.known_hosts_file)
    name = hop.host if hop.port == 22 else f"[{hop.host}]:{hop.port}"
    shown = ""
    if hop.shown_key is not None:
        algorithm = hop.shown_key.get_algorithm()
        shown = f" ({algorithm} {hop.shown_key.get_fingerprint()})"
    if hop.known_keys:
        return (
            f"the host key of {hop.server} has changed{shown}: it was reinstalled, or somebody"
            " else answers in its place. If you know why, remove the old key and add the new:"
            f" ssh-keygen -R {shlex.quote(name)} -f {file} && {_keyscan(hop)} >> {file}"
        )
    return (
        f"the host key of {hop.server} is not known{shown}. Compare it with the server's, and"
        f" add it: {_keyscan(hop)} >> {file}"
    )


def _keyscan(hop: Hop) -> str:
    port = "" if hop.port == 22 else f"-p {hop.port} "
    scan = f"ssh-keyscan {port}{shlex.quote(hop.host)}"
    if not hop.via:
        return scan
    config = f"-F {shlex.quote(hop.config)} " if hop.config else ""
    return f"ssh {config}{shlex.quote(hop.via)} {scan}"


def _permission(exc: asyncssh.PermissionDenied, hop: Hop) -> str:
    said = f" (it says: {hop.banner.strip()})" if hop.banner.strip() else ""
    return (
        f"{hop.server} refuses {hop.user}{said}: no key that was offered is accepted, and nobody is"
        f" asked for a password. Install a key ({hop.command('ssh-copy-id')}), name it with"
        f" keys= or IdentityFile, or load it with ssh-add, until this works:"
        f" {hop.command('ssh')}"
    )


def _unreachable(exc: asyncssh.ChannelOpenError | OSError, hop: Hop) -> str:
    if isinstance(exc, asyncssh.ChannelOpenError):
        return (
            f"the jump host {hop.via} cannot reach {hop.server}: {exc.reason}; check the name and"
            f" port, and that its sshd allows forwarding: {hop.command('ssh')}"
        )
    if isinstance(exc, socket.gaierror):
        return (
            f"the name {hop.host!r} is not known ({exc.strerror}); is it spelt right, and in the"
            " DNS, /etc/hosts, or as HostName in the SSH configuration?"
        )
    if exc.filename is not None:
        return f"cannot read {exc.filename}: {exc.strerror}"
    text = str(exc)
    if isinstance(exc, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in text:
        return (
            f"nothing listens at {hop.host} port {hop.port}; is sshd running there, and is the"
            " port right?"
        )
    if isinstance(exc, TimeoutError):
        return f"{hop.server} did not answer in time; is it up, and does a firewall let us through?"
    why = os.strerror(exc.errno) if exc.errno else exc
    return f"{hop.server} cannot be reached: {why}"
