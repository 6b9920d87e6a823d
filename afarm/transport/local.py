"""This machine as a node: the agent runs as a child process, in the farm's own interpreter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from .._monitor.kernel import why_no_node
from ..errors import NodeError
from ..resources import Resources
from . import bootstrap, process
from .base import Connection, Receiver
from .stated import short_repr, stated_resources


@dataclass(frozen=True, repr=False)
class LocalNode:
    """This machine.

    Args:
        cores: How many cores it offers; ``None``: as many as it has.
        memory: How much memory, in bytes or as ``"16 GiB"``; ``None``: as much as it has.
        disk: How much disk, likewise; ``None``: what is free.
        gpus: How many GPUs; ``None``: those of its ``CUDA_VISIBLE_DEVICES``, else all it has.
        labels: Words that calls can ask for.
        scratch: Where the agent keeps its files; empty: where it thinks best.
        name: What the farm calls it.
    """

    cores: float | None = None
    memory: int | str | None = None
    disk: int | str | None = None
    gpus: int | None = None
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    scratch: str = field(default="", kw_only=True)
    name: str = field(default="local", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        _ = self.stated

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def usual_name(self) -> str:
        """What it is called unless it was given a name."""
        return "local"

    @property
    def stated(self) -> Resources:
        """The capacity that was stated."""
        return stated_resources(
            cores=self.cores, memory=self.memory, disk=self.disk, gpus=self.gpus
        )

    @property
    def in_place(self) -> bool:
        """Whether the farm's own interpreter and ``sys.path`` serve there: they do."""
        return True

    async def connect(
        self, receiver: Receiver, first: Sequence[bytes] = (), *, program: bytes | None = None
    ) -> Connection:
        """Start the agent; see `base.Node.connect`."""
        if why_not := why_no_node(sys.platform):
            raise NodeError(
                f"node {self.name}: {why_not}; afarm.monitor runs single calls here", node=self.name
            )
        if not sys.executable:
            raise NodeError(
                f"node {self.name}: this Python does not know its own executable (it is embedded"
                " in a program); use a CommandNode that names one",
                node=self.name,
            )
        payload = await bootstrap.ready_payload(program, near=True)
        argv = [sys.executable, *bootstrap.interpreter_arguments(len(payload))]
        return await process.start(self.name, argv, receiver, [payload, *first])
