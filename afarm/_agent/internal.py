"""The messages inside a node: agent, template and supervisor.

They are frames like those between farm and agent, with kinds of their own, so that one
reader serves all. The worker's socket carries messages of the farm's protocol as well:
`Run`, bulk and `More` to it; `Ended`, `Item`, `Returned`, `Missing` and bulk from it. In the
worker's `Ended`, ``next`` is free and holds `Flag`s.
"""

from __future__ import annotations

from enum import IntFlag

from .._wire.codec import Message, message
from .._wire.messages import Isolation
from ..resources import Resources, Usage

# Kinds of the farm's protocol end below this.
_FIRST = 128


class Flag(IntFlag):
    """What a worker says of itself with a result."""

    PRINTED = 1  # it may have printed: the supervisor is asked to pass that on first
    TREE = 2  # it has, or had, children: the supervisor knows what they used
    LEAVING = 4  # it serves no further call: its result counts when its tree is gone


# --- from the agent to a template, and back


@message(_FIRST)
class Setup(Message):
    """What a template is to become; the first thing it reads."""

    number: int
    description: str  # JSON, see `template.Plan`


@message(_FIRST + 1)
class Ready(Message):
    """The template has imported what it was to import, or cannot be used: ``problem``."""

    number: int
    problem: str
    notes: str


@message(_FIRST + 2)
class Fork(Message):
    """Fork a supervisor; a socket to the agent and their page come along."""

    supervisor: int


# --- from the storekeeper to the agent


@message(_FIRST + 4)
class Arriving(Message):
    """Of an environment all but some modules is there: importing can begin. See `early`."""

    environment: int
    folder: str


# --- from the agent to a supervisor, and back


@message(_FIRST + 8)
class Watch(Message):
    """The worker is about to run this attempt (fork), or attempts with these limits (reuse).

    ``sequence`` is the number of the call in this worker, from 1.
    """

    worker: int
    sequence: int
    expected: int  # bytes of memory that are predicted and no limit; 0: none
    isolation: Isolation
    limits: Resources


@message(_FIRST + 9)
class Settle(Message):
    """Pass on what call ``sequence`` printed, and say what its tree used.

    With ``tree`` whatever the call has started ends. With ``leaving`` the worker only
    hands over its result, and another one is wanted.
    """

    worker: int
    sequence: int
    tree: bool
    leaving: bool


@message(_FIRST + 10)
class Dispose(Message):
    """Kill the worker and everything it started."""

    worker: int


@message(_FIRST + 11)
class Prepare(Message):
    """Make these modules ready: the calls of later workers import them. See `prepared`."""

    supervisor: int
    names: str  # one a line, packages before what lies in them


@message(_FIRST + 16)
class WorkerReady(Message):
    """A worker waits for calls; its socket comes along."""

    worker: int
    pid: int
    supervisor: int  # its process


@message(_FIRST + 17)
class Printed(Message):
    """The call printed something."""

    worker: int
    sequence: int
    stream: int
    dropped: int
    body: bytes


@message(_FIRST + 18)
class Measured(Message):
    """What the present call uses so far."""

    worker: int
    sequence: int
    usage: Usage


@message(_FIRST + 21)
class Curve(Message):
    """How the usage of call ``sequence`` went, ahead of its end: see `_monitor.curve`."""

    worker: int
    sequence: int
    body: bytes


@message(_FIRST + 19)
class Settled(Message):
    """The answer to `Settle`: what was seen of the call's tree, and the end of its output.

    ``resource`` names what it went over, if the kernel has killed a process of its for that.
    """

    worker: int
    sequence: int
    orphans: float  # seconds of CPU of its processes that it did not wait for
    usage: Usage
    resource: str
    tail: bytes


@message(_FIRST + 20)
class WorkerGone(Message):
    """The worker and its tree are gone.

    ``resource`` names what it went over if that is why it was killed.
    """

    worker: int
    sequence: int  # of the last call it began; 0: none
    exit: int
    orphans: float  # as in `Settled`
    usage: Usage
    resource: str
    tail: bytes


# --- from the agent to a worker, and back


@message(_FIRST + 24)
class Function(Message):
    """The pickle of a function that later calls name; larger ones lie in a file."""

    blob: int
    body: bytes


@message(_FIRST + 25)
class Imported(Message):
    """A worker of one call has imported these; see `prepared`. Comes before its `Ended`."""

    worker: int
    names: str  # one a line


@message(_FIRST + 26)
class Found(Message):
    """The answer to a worker's `Missing`; supervisors hear it for the workers to come."""

    worker: int  # 0: to a supervisor
    name: str
    folder: str  # of an environment that has the module; empty: there is none


@message(_FIRST + 27)
class Devices(Message):
    """The worker's calls see these GPUs, and no others. Comes before its first call."""

    worker: int
    visible: str  # for CUDA_VISIBLE_DEVICES


# --- from the agent to the gauge, and back


@message(_FIRST + 32)
class Weigh(Message):
    """Look at the GPU memory of an attempt from now on; without ``process``, no longer."""

    invocation: int
    process: int  # its worker's number


@message(_FIRST + 33)
class Weighed(Message):
    """The most that an attempt was seen to use; comes whenever that has risen."""

    invocation: int
    body: bytes  # see `_monitor.gpu_memory`


FROM_AGENT = frozenset(each.kind for each in (Setup, Fork, Watch, Settle, Dispose, Prepare, Found))
TO_AGENT = frozenset(
    each.kind for each in (Ready, WorkerReady, Printed, Measured, Curve, Settled, WorkerGone)
)
