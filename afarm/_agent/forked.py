"""What a supervisor knows of its workers, and where they find things."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._monitor.groups import Parent
from .._wire.messages import Isolation
from ..resources import Usage
from .output import Pipes
from .page import BEGUN, CLEAN, ENDED
from .watch import CallWatch


@dataclass(frozen=True, slots=True)
class Place:
    """Where a supervisor's workers find things.

    Attributes:
        calls: The folder for scratch directories.
        blobs: The folder with large functions and put objects.
        groups: The control groups of all calls.
        threads: How many processes and threads those may have; 0: any number.
    """

    calls: str
    blobs: str
    groups: tuple[Parent, ...] = ()
    threads: int = 0


@dataclass(slots=True)
class Forked:
    """A worker, as its supervisor knows it."""

    number: int
    pid: int
    pipes: Pipes
    slot: memoryview
    folder: str
    watch: CallWatch | None = None
    isolation: Isolation = Isolation.FORK
    printed_at: float = 0.0  # when output began to wait; 0: none does
    resource: str = ""  # what it went over, once it did
    exit: int | None = None
    usage: Usage = field(default_factory=Usage)
    orphans: float = 0.0  # seconds of CPU of processes of its call that ended as ours

    @property
    def clean(self) -> bool:
        """Whether its last call ended and left no process behind, as the worker says.

        A worker adopts its orphans itself while it lives, so that it knows at no cost
        what a search through all processes takes milliseconds to find out.
        """
        return 0 < int(self.slot[BEGUN]) == self.slot[ENDED] == self.slot[CLEAN]
