"""A node reached by SSH: what can be said of it. `ssh_connect` does the work.

asyncssh is imported when the first such node is connected, in a thread: it takes a
tenth of a second that neither ``import afarm`` nor the user's loop shall pay.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..resources import Resources
from . import bootstrap
from .base import Connection, Receiver
from .contact import Contact
from .stated import short_repr, stated_resources

Path = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class SSHNode:
    """A machine reached by SSH.

    What is not given here is taken from ``~/.ssh/config``, as ``ssh`` itself does.

    Args:
        host: Its name as ``ssh`` takes it: in the configuration, the DNS, or an address.
        user: Whom to log in as.
        port: Where its SSH server listens.
        config: Configuration files to read instead of ``~/.ssh/config``.
        known_hosts: Files of host keys to trust instead of those configured.
        keys: Private keys to offer instead of those configured and the SSH agent's.
        jump: Hosts to go through, ``[user@]host[:port]`` separated by commas, instead of
            the configured ``ProxyJump``; empty: none.
        python: The Python there, a path or a name; ``None``: it is looked for, and where there is
            none of this side's minor version, this side's own is sent.
        scratch: Where the agent keeps its files; empty: where it thinks best.
        cores: How many cores it offers; ``None``: as many as it has.
        memory: How much memory, in bytes or as ``"16 GiB"``; ``None``: as much as it has.
        disk: How much disk, likewise; ``None``: what is free.
        gpus: How many GPUs; ``None``: those of its ``CUDA_VISIBLE_DEVICES``, else all it has.
        labels: Words that calls can ask for.
        name: What the farm calls it; empty: the host as given.
    """

    host: str
    user: str | None = field(default=None, kw_only=True)
    port: int | None = field(default=None, kw_only=True)
    config: Path | Sequence[Path] | None = field(default=None, kw_only=True)
    known_hosts: Path | Sequence[Path] | None = field(default=None, kw_only=True)
    keys: Path | Sequence[Path] | None = field(default=None, kw_only=True)
    jump: str | None = field(default=None, kw_only=True)
    python: str | None = field(default=None, kw_only=True)
    scratch: str = field(default="", kw_only=True)
    cores: float | None = field(default=None, kw_only=True)
    memory: int | str | None = field(default=None, kw_only=True)
    disk: int | str | None = field(default=None, kw_only=True)
    gpus: int | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.host or self.host.startswith("-") or any(c.isspace() for c in self.host):
            raise ValueError(f"{self.host!r} is not the name of a host")
        if "@" in self.host:
            raise ValueError(f"{self.host!r} names a user too: write SSHNode(host, user=...)")
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(
                f"host {self.host}: a port is a number from 1 to 65535, not {self.port}"
            )
        for option in "config", "known_hosts", "keys":
            object.__setattr__(self, option, paths(getattr(self, option)))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "name", self.name or self.usual_name)
        _ = self.stated, bootstrap.shell_script(self.python, length=0)

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def usual_name(self) -> str:
        """What it is called unless it was given a name."""
        return self.host

    @property
    def stated(self) -> Resources:
        """The capacity that was stated."""
        return stated_resources(
            cores=self.cores, memory=self.memory, disk=self.disk, gpus=self.gpus
        )

    @property
    def in_place(self) -> bool:
        """Whether the farm's own interpreter and ``sys.path`` serve there: not over SSH."""
        return False

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> Connection:
        """Log in and start the agent; see `base.Node.connect`."""
        payload, _ = await asyncio.gather(
            bootstrap.ready_payload(program),
            asyncio.to_thread(importlib.import_module, f"{__package__}.ssh_connect"),
        )
        from .ssh_connect import start

        data = [payload, *first]
        command = bootstrap.shell_command(
            self.python, length=len(payload), scratch=self.scratch, helped=sum(map(len, data))
        )
        contact = Contact(self.name, receiver, self.scratch, data)
        return contact.join(await start(self, command, contact, data))


def paths(given: Path | Sequence[Path] | None) -> tuple[str, ...] | None:
    """Return paths in one form: ``None``, or a tuple of strings with the home filled in."""
    if given is None:
        return None
    each = [given] if isinstance(given, (str, os.PathLike)) else given
    return tuple(os.path.expanduser(os.fspath(path)) for path in each)
