"""A node behind any program that passes on its standard input and output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..resources import Resources
from . import bootstrap, process
from .base import Connection, Receiver
from .contact import Contact
from .stated import short_repr, stated_resources


@dataclass(frozen=True, repr=False)
class CommandNode:
    """What a program leads to: ``srun``, ``kubectl exec -i POD --``, ``docker exec -i NAME``.

    Args:
        argv: The program and its arguments. The agent's command is appended to them.
        shell: Append it as one word, for a program that hands it to a shell there, as
            ``ssh`` does; otherwise as three: ``/bin/sh``, ``-c`` and a script.
        python: The Python there, a path or a name; ``None``: it is looked for, and where there is
            none of this side's minor version, this side's own is sent.
        cores: How many cores it offers; ``None``: as many as it has.
        memory: How much memory, in bytes or as ``"16 GiB"``; ``None``: as much as it has.
        disk: How much disk, likewise; ``None``: what is free.
        gpus: How many GPUs; ``None``: those of its ``CUDA_VISIBLE_DEVICES``, else all it has.
        labels: Words that calls can ask for.
        scratch: Where the agent keeps its files; empty: where it thinks best.
        name: What the farm calls it; empty: the program's name.
    """

    argv: Sequence[str]
    shell: bool = False
    python: str | None = field(default=None, kw_only=True)
    cores: float | None = field(default=None, kw_only=True)
    memory: int | str | None = field(default=None, kw_only=True)
    disk: int | str | None = field(default=None, kw_only=True)
    gpus: int | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    scratch: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.argv, str) or not self.argv:
            raise ValueError(f"argv is a program and its arguments, in a list, not {self.argv!r}")
        object.__setattr__(self, "argv", tuple(self.argv))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "name", self.name or self.usual_name)
        _ = self.stated, bootstrap.shell_script(self.python, length=0)

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def usual_name(self) -> str:
        """What it is called unless it was given a name."""
        return os.path.basename(self.argv[0])

    @property
    def stated(self) -> Resources:
        """The capacity that was stated."""
        return stated_resources(
            cores=self.cores, memory=self.memory, disk=self.disk, gpus=self.gpus
        )

    @property
    def in_place(self) -> bool:
        """Whether the farm's own interpreter and ``sys.path`` serve there: nobody knows."""
        return False

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> Connection:
        """Start the program; see `base.Node.connect`."""
        data = [await bootstrap.ready_payload(program), *first]
        contact = Contact(self.name, receiver, self.scratch, data)
        length, size = len(data[0]), sum(map(len, data))
        if self.shell:
            tail = [
                bootstrap.shell_command(
                    self.python, length=length, scratch=self.scratch, helped=size
                )
            ]
        else:
            script = bootstrap.shell_script(
                self.python, length=length, scratch=self.scratch, helped=size
            )
            tail = ["/bin/sh", "-c", script]
        return contact.join(await process.start(self.name, [*self.argv, *tail], contact, data))
