"""The messages between the farm and an agent.

Each message is a dataclass, encoded as `codec` says. What carries a payload (`Run`,
`Ended`, `Item`) says in ``layout`` how long its parts are (see `payloads`); small payloads
are in ``body``, larger ones follow as bulk frames with the same subject. What the messages
do is in ARCHITECTURE.md, "The wire".

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

from enum import IntEnum

from ..resources import Resources, Usage
from .codec import KINDS, message, wire_enum
from .codec import Message as Message
from .codec import decode as decode
from .codec import encode as encode
from .codec import unpack_usage as unpack_usage
from .frames import CONTROL_LIMIT

# Raised with every change of a message: both ends are always of the same release, since
# the agent's code is streamed, so that a difference means a fault and not an old node.
PROTOCOL_VERSION = 1

# What an agent writes before its first frame. Whatever a login shell printed before it
# is skipped. It holds bytes that no text has.
MAGIC = b"\x00\xafAFARM\x01\n"


@wire_enum
class Isolation(IntEnum):
    """How an invocation shares a process with others; see ``Farm(isolation=)``."""

    FORK = 0
    REUSE = 1


@wire_enum
class Outcome(IntEnum):
    """How an attempt ended."""

    RETURNED = 0  # the payload is the result
    RAISED = 1  # the payload is the exception
    EXHAUSTED = 2  # it was stopped, or found out afterwards, for going over `resource`
    CRASHED = 3  # its process died by itself; `exit` says how
    KILLED = 4  # it was stopped because the farm asked for it
    UNUSABLE = 5  # function or arguments could not be loaded there: the payload says why
    UNPICKLABLE = 6  # the result could not be pickled: the payload says which part


@wire_enum
class KillReason(IntEnum):
    """Why the farm stops an attempt; the agent reports it, and does the same for each."""

    CANCELLED = 0
    EVICTED = 1


# --- from the farm to the agent


@message(16)
class Welcome(Message):
    """The first message to an agent, sent with its code before it answers."""

    epoch: int  # rises with each connection of one farm to one node
    hash_seed: int
    heartbeat: float  # seconds between the agent's heartbeats
    silence: float  # seconds without a byte from the farm after which the agent ends
    capacity: Resources  # what the user stated of the node; the agent measures the rest
    farm: str  # unique to one Farm object: an older agent of the same farm is ended
    node: str  # the node's name
    scratch: str  # the folder for caches and scratch directories; empty: the agent's choice


@message(17)
class Environment(Message):
    """What an environment is made of. Comes before the first `Run` that names it."""

    environment: int
    description: str  # JSON; see `environments.Environment.describe`


@message(18)
class Blob(Message):
    """A blob follows, as bulk frames with this subject."""

    blob: int
    size: int
    digest: str  # SHA-256 of the content, or empty for what is not kept between runs
    role: str  # "function", "object" or "bundle"
    name: str  # for people


@message(19)
class Forget(Message):
    """The blob is not needed any more."""

    blob: int


@message(20)
class Run(Message):
    """Run an attempt of an invocation.

    With ``queued`` it has no allocation of its own yet: it starts in the place of the
    next attempt of ``group`` that ends; if the group has none running, it is `Returned`.
    """

    invocation: int
    attempt: int
    group: int
    queued: bool
    soft: bool  # the memory in ``limits`` is predicted: who outgrows it is told of, not ended
    isolation: Isolation
    environment: int
    function: int  # the blob of the function
    limits: Resources
    size: int  # bytes of the payload; more than `body` has: it follows as bulk
    layout: bytes
    refs: bytes  # blobs that the arguments refer to: unsigned 64-bit numbers
    settings: str  # JSON: "env", "cwd", "stream", "name"; empty: none of them
    body: bytes


@message(21)
class Kill(Message):
    """Stop the attempt and its process tree, or drop it if it has not started."""

    invocation: int
    attempt: int
    reason: KillReason


@message(22)
class Recall(Message):
    """Give the attempt back (`Returned`) if it has not started."""

    invocation: int
    attempt: int


@message(23)
class Resize(Message):
    """The attempt's limits are now these: it grows or shrinks in place."""

    invocation: int
    attempt: int
    limits: Resources


@message(24)
class More(Message):
    """The caller of a stream takes this many more items."""

    invocation: int
    attempt: int
    items: int


@message(25)
class Stop(Message):
    """End everything and exit."""

    reason: int


@message(26)
class Ping(Message):
    """Asks for a `Pong`; also the farm's sign of life."""

    token: int


@message(27)
class Ack(Message):
    """Bulk bytes received on this connection, since its start. Paces the sender."""

    received: int


@message(28)
class Credit(Message):
    """The receiver of the blob or payload ``subject`` has room for more bytes of it."""

    subject: int
    amount: int


@message(29)
class Module(Message):
    """The answer to `Missing`: an environment that has what the first one has, and the module."""

    environment: int
    provider: int  # its number; described next, unless it was before. 0: the farm lacks it too
    name: str


# --- from the agent to the farm


@message(64)
class Hello(Message):
    """The first message of an agent: what the node is and has."""

    version: int
    capacity: Resources
    description: str  # JSON: python, platform, tiers, scratch, warnings


@message(65)
class Heartbeat(Message):
    """The agent's sign of life, and how the node is."""

    sequence: int
    load: float  # cores in use by anyone
    available: int  # bytes of memory a new process could have
    pressure: float  # share of the last 10 s that something waited for memory (PSI), or -1


@message(66)
class Reading(Message):
    """What a running attempt uses so far."""

    invocation: int
    attempt: int
    usage: Usage


@message(78)
class Details(Message):
    """What of an attempt's usage few have, ahead of its `Ended`; empty: nothing to add."""

    invocation: int
    attempt: int
    gpu_memory: bytes  # the peak of each GPU: see `_monitor.gpu_memory`
    body: bytes  # how its usage went: see `_monitor.curve`


@message(67)
class Ended(Message):
    """The attempt is over and its process tree gone; ``next`` started in its place."""

    invocation: int
    attempt: int
    outcome: Outcome
    exit: int  # for CRASHED: as in Usage.exit
    next: int  # the queued invocation that took over its allocation; 0: none did
    size: int  # bytes of the payload; more than `body` has: it follows as bulk
    usage: Usage
    layout: bytes
    resource: str  # for EXHAUSTED: which
    output: bytes  # for other outcomes than RETURNED: the end of what it printed
    body: bytes


@message(68)
class Returned(Message):
    """The attempt did not start, and will not: it was recalled, or its group had ended."""

    invocation: int
    attempt: int


@message(69)
class Item(Message):
    """One item of a stream."""

    invocation: int
    attempt: int
    index: int
    size: int
    layout: bytes
    body: bytes


@message(70)
class Output(Message):
    """Something the function printed."""

    invocation: int
    attempt: int
    stream: int  # 1 or 2
    dropped: int  # bytes left out before these: it printed more than is passed on
    body: bytes


@message(71)
class Stored(Message):
    """The blob is complete, verified and in place."""

    blob: int


@message(72)
class Lost(Message):
    """The blob is not there, or no longer: ``reason`` says why."""

    blob: int
    reason: str


@message(73)
class EnvironmentState(Message):
    """An environment is ready for use, or cannot be had: ``problem`` says why."""

    environment: int
    problem: str
    notes: str  # for `farm.nodes`, e.g. "starts processes anew: polars is not fork-safe"


@message(74)
class Pong(Message):
    """The answer to a `Ping`."""

    token: int


@message(75)
class Notice(Message):
    """Something on the node that people should know; goes to the log."""

    level: int  # as in `logging`
    text: str


@message(76)
class Farewell(Message):
    """The agent's last message: everything it started is gone, and it exits."""

    forced: int  # 1: not asked for
    reason: str


@message(77)
class Missing(Message):
    """A call imports a module that its environment lacks, and waits for `Module`."""

    invocation: int
    attempt: int
    environment: int
    name: str


TO_AGENT = frozenset(kind for kind in KINDS if kind < 64)
# Acknowledgements and credits go both ways.
TO_FARM = frozenset(kind for kind in KINDS if kind >= 64) | {27, 28}


def largest_body() -> int:
    """Return how many bytes of payload surely fit into a control frame beside its fields."""
    return CONTROL_LIMIT // 2
