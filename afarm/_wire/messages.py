"""The messages between the farm and an agent, and their encoding.

Each message is a dataclass. Its first field is the subject, which travels in the
frame's header; the other fields are encoded in their order: numbers in one struct, then
strings and bytes, each with its length, and last ``body``, which takes the rest.

What carries a payload (`Run`, `Ended`, `Item`) says in ``layout`` how long its parts are
(see `payloads`); small payloads are in ``body``, larger ones follow as bulk frames with
the same subject. What the messages do is in ARCHITECTURE.md, "The wire".

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, TypeVar, dataclass_transform

from ..errors import LocalProtocolError, RemoteProtocolError
from ..resources import Resources, Usage, astuple
from .frames import CONTROL_LIMIT, Frame, pack_header

# Raised with every change of a message: both ends are always of the same release, since
# the agent's code is streamed, so that a difference means a fault and not an old node.
PROTOCOL_VERSION = 1

# What an agent writes before its first frame. Whatever a login shell printed before it
# is skipped. It holds bytes that no text has.
MAGIC = b"\x00\xafAFARM\x01\n"


class Isolation(IntEnum):
    """How an invocation shares a process with others; see ``Farm(isolation=)``."""

    FORK = 0
    REUSE = 1


class Outcome(IntEnum):
    """How an attempt ended."""

    RETURNED = 0  # the payload is the result
    RAISED = 1  # the payload is the exception
    EXHAUSTED = 2  # it was stopped, or found out afterwards, for going over `resource`
    CRASHED = 3  # its process died by itself; `exit` says how
    KILLED = 4  # it was stopped because the farm asked for it
    UNUSABLE = 5  # function or arguments could not be loaded there: the payload says why
    UNPICKLABLE = 6  # the result could not be pickled: the payload says which part


class KillReason(IntEnum):
    """Why the farm stops an attempt; the agent reports it, and does the same for each."""

    CANCELLED = 0
    EVICTED = 1


class Message:
    """What `encode` takes: the base of the dataclasses below.

    Type checkers hold them to be frozen. At run time they are plain: a frozen dataclass takes
    twice as long to make, one for each call and direction, and its generated methods would be
    compiled in each process of a node; those of this class serve all.
    """

    __slots__: tuple[str, ...] = ()
    kind: ClassVar[int]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.kind, *(getattr(self, name) for name in self.__slots__)))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r:.100}" for name in self.__slots__)
        return f"{type(self).__name__}({told})"


_RESOURCES = struct.Struct("<dqqqddq")  # NaN and -1 stand for None
_USAGE = struct.Struct("<dddqqqqqqqqdq")
_NO_EXIT = 1 << 40


@lru_cache(maxsize=4096)
def _pack_resources(resources: Resources) -> bytes:
    cores, memory, disk, gpus, wall_time, cpu_time, processes = astuple(resources)
    return _RESOURCES.pack(
        math.nan if cores is None else cores,
        -1 if memory is None else memory,
        -1 if disk is None else disk,
        -1 if gpus is None else gpus,
        math.nan if wall_time is None else wall_time,
        math.nan if cpu_time is None else cpu_time,
        -1 if processes is None else processes,
    )


@lru_cache(maxsize=4096)
def _unpack_resources(packed: bytes) -> Resources:
    cores, memory, disk, gpus, wall_time, cpu_time, processes = _RESOURCES.unpack(packed)
    return Resources(
        cores=None if math.isnan(cores) else cores,
        memory=None if memory < 0 else memory,
        disk=None if disk < 0 else disk,
        gpus=None if gpus < 0 else gpus,
        wall_time=None if math.isnan(wall_time) else wall_time,
        cpu_time=None if math.isnan(cpu_time) else cpu_time,
        processes=None if processes < 0 else processes,
    )


_usage_values = attrgetter(*(field.name for field in fields(Usage) if field.name != "exit"))


def _pack_usage(usage: Usage) -> bytes:
    return _USAGE.pack(*_usage_values(usage), _NO_EXIT if usage.exit is None else usage.exit)


def unpack_usage(packed: bytes, at: int = 0) -> Usage:
    """Return the usage that lies in a body."""
    measured: tuple[Any, ...] = _USAGE.unpack_from(packed, at)
    exit_ = None if measured[-1] == _NO_EXIT else measured[-1]
    return Usage(*(*measured[:-1], exit_))


# How each annotated type lies in the struct: its format, from a field's value to what
# the struct takes, and back. `None`: the value itself.
_FIXED: dict[str, tuple[str, Callable[[Any], Any] | None, Callable[[Any], Any] | None]] = {
    "int": ("q", None, None),
    "float": ("d", None, None),
    "bool": ("?", None, None),
    # Looked up and not called: making a member of an enumeration takes 0.4 us.
    "Isolation": ("B", None, {int(each): each for each in Isolation}.__getitem__),
    "Outcome": ("B", None, {int(each): each for each in Outcome}.__getitem__),
    "KillReason": ("B", None, {int(each): each for each in KillReason}.__getitem__),
    "Resources": (f"{_RESOURCES.size}s", _pack_resources, _unpack_resources),
    "Usage": (f"{_USAGE.size}s", _pack_usage, unpack_usage),
}

_LENGTH = struct.Struct("<I")
_KINDS: dict[int, _Codec] = {}

_M = TypeVar("_M")


class _Codec:
    """How one class of messages is encoded, worked out once from its fields."""

    __slots__ = ("body", "fixed", "from_wire", "get", "new", "rest", "subject", "to_wire")

    def __init__(self, cls: type[Any]) -> None:
        names = [(field.name, str(field.type)) for field in fields(cls)]
        self.new: Callable[..., Any] = cls
        self.subject, _ = names[0]
        fixed = [(name, kind) for name, kind in names[1:] if kind in _FIXED]
        self.rest = [
            (name, kind == "str")
            for name, kind in names[1:]
            if kind not in _FIXED and name != "body"
        ]
        self.body = names[-1][0] == "body"
        ordered = [name for name, _ in fixed] + [name for name, _ in self.rest]
        if [name for name, _ in names[1:] if name != "body"] != ordered:
            raise TypeError(f"{cls.__name__}: numbers first, then strings and bytes, then body")
        self.fixed = struct.Struct("<" + "".join(_FIXED[kind][0] for _, kind in fixed))
        self.get = attrgetter(self.subject, *ordered, *(["body"] if self.body else []))
        self.to_wire = [
            (at, convert) for at, (_, kind) in enumerate(fixed, 1) if (convert := _FIXED[kind][1])
        ]
        self.from_wire = [
            (at, convert) for at, (_, kind) in enumerate(fixed) if (convert := _FIXED[kind][2])
        ]


@dataclass_transform(frozen_default=True)
def _message(kind: int) -> Callable[[type[_M]], type[_M]]:
    """Make a dataclass of a message and register its kind."""

    def decorate(cls: type[_M]) -> type[_M]:
        made = dataclass(slots=True, eq=False, repr=False)(cls)
        made.kind = kind  # type: ignore[attr-defined]
        if kind in _KINDS:
            raise TypeError(f"kind {kind} is taken")
        _KINDS[kind] = _Codec(made)
        return made

    return decorate


# --- from the farm to the agent


@_message(16)
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


@_message(17)
class Environment(Message):
    """What an environment is made of. Comes before the first `Run` that names it."""

    environment: int
    description: str  # JSON; see `environments.Environment.describe`


@_message(18)
class Blob(Message):
    """A blob follows, as bulk frames with this subject."""

    blob: int
    size: int
    digest: str  # SHA-256 of the content, or empty for what is not kept between runs
    role: str  # "function", "object" or "bundle"
    name: str  # for people


@_message(19)
class Forget(Message):
    """The blob is not needed any more."""

    blob: int


@_message(20)
class Run(Message):
    """Run an attempt of an invocation.

    With ``queued`` it has no allocation of its own yet: it starts in the place of the
    next attempt of ``group`` that ends; if the group has none running, it is `Returned`.
    """

    invocation: int
    attempt: int
    group: int
    queued: bool
    isolation: Isolation
    environment: int
    function: int  # the blob of the function
    limits: Resources
    size: int  # bytes of the payload; more than `body` has: it follows as bulk
    layout: bytes
    refs: bytes  # blobs that the arguments refer to: unsigned 64-bit numbers
    settings: str  # JSON: "env", "cwd", "stream", "name"; empty: none of them
    body: bytes


@_message(21)
class Kill(Message):
    """Stop the attempt and its process tree, or drop it if it has not started."""

    invocation: int
    attempt: int
    reason: KillReason


@_message(22)
class Recall(Message):
    """Give the attempt back (`Returned`) if it has not started."""

    invocation: int
    attempt: int


@_message(23)
class Resize(Message):
    """The attempt's limits are now these: it grows or shrinks in place."""

    invocation: int
    attempt: int
    limits: Resources


@_message(24)
class More(Message):
    """The caller of a stream takes this many more items."""

    invocation: int
    attempt: int
    items: int


@_message(25)
class Stop(Message):
    """End everything and exit."""

    reason: int


@_message(26)
class Ping(Message):
    """Asks for a `Pong`; also the farm's sign of life."""

    token: int


@_message(27)
class Ack(Message):
    """Bulk bytes received on this connection, since its start. Paces the sender."""

    received: int


@_message(28)
class Credit(Message):
    """The receiver of the blob or payload ``subject`` has room for more bytes of it."""

    subject: int
    amount: int


# --- from the agent to the farm


@_message(64)
class Hello(Message):
    """The first message of an agent: what the node is and has."""

    version: int
    capacity: Resources
    description: str  # JSON: python, platform, tiers, scratch, warnings


@_message(65)
class Heartbeat(Message):
    """The agent's sign of life, and how the node is."""

    sequence: int
    load: float  # cores in use by anyone
    available: int  # bytes of memory a new process could have
    pressure: float  # share of the last 10 s that something waited for memory (PSI), or -1


@_message(66)
class Reading(Message):
    """What a running attempt uses so far."""

    invocation: int
    attempt: int
    usage: Usage


@_message(67)
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


@_message(68)
class Returned(Message):
    """The attempt did not start, and will not: it was recalled, or its group had ended."""

    invocation: int
    attempt: int


@_message(69)
class Item(Message):
    """One item of a stream."""

    invocation: int
    attempt: int
    index: int
    size: int
    layout: bytes
    body: bytes


@_message(70)
class Output(Message):
    """Something the function printed."""

    invocation: int
    attempt: int
    stream: int  # 1 or 2
    dropped: int  # bytes left out before these: it printed more than is passed on
    body: bytes


@_message(71)
class Stored(Message):
    """The blob is complete, verified and in place."""

    blob: int


@_message(72)
class Lost(Message):
    """The blob is not there, or no longer: ``reason`` says why."""

    blob: int
    reason: str


@_message(73)
class EnvironmentState(Message):
    """An environment is ready for use, or cannot be had: ``problem`` says why."""

    environment: int
    problem: str
    notes: str  # for `farm.nodes`, e.g. "starts processes anew: polars is not fork-safe"


@_message(74)
class Pong(Message):
    """The answer to a `Ping`."""

    token: int


@_message(75)
class Notice(Message):
    """Something on the node that people should know; goes to the log."""

    level: int  # as in `logging`
    text: str


@_message(76)
class Farewell(Message):
    """The agent's last message: everything it started is gone, and it exits."""

    forced: int  # 1: not asked for
    reason: str


TO_AGENT = frozenset(kind for kind in _KINDS if kind < 64)
# Acknowledgements and credits go both ways.
TO_FARM = frozenset(kind for kind in _KINDS if kind >= 64) | {27, 28}


def encode(message: Message) -> bytes:
    """Return the frame of a message.

    Raises:
        LocalProtocolError: If a field does not fit its type, or the whole one frame.
    """
    codec = _KINDS[message.kind]
    values: Any = codec.get(message)
    count = 1
    if isinstance(values, tuple):
        count = len(values)
    else:
        values = (values,)
    numbers = count - len(codec.rest) - codec.body
    try:
        fixed = list(values[:numbers])
        for at, convert in codec.to_wire:
            fixed[at] = convert(fixed[at])
        parts = [codec.fixed.pack(*fixed[1:])]
        for (_, text), value in zip(codec.rest, values[numbers:], strict=False):
            data = value.encode("utf-8", "surrogateescape") if text else value
            parts.append(_LENGTH.pack(len(data)))
            parts.append(data)
        if codec.body:
            parts.append(values[-1])
        body = b"".join(parts)
        return pack_header(message.kind, values[0], len(body)) + body
    except (struct.error, TypeError, AttributeError, OverflowError) as exc:
        raise LocalProtocolError(f"cannot encode {message!r:.300}: {exc}") from exc


def decode(frame: Frame) -> Message:
    """Return the message of a frame.

    Raises:
        RemoteProtocolError: If the body is not one of its kind; the message names it.
    """
    codec = _KINDS.get(frame.kind)
    if codec is None:
        raise RemoteProtocolError(f"a frame of unknown kind {frame.kind}")
    body = frame.body
    try:
        values = list(codec.fixed.unpack_from(body))
        for at, convert in codec.from_wire:
            values[at] = convert(values[at])
        at = codec.fixed.size
        for _, text in codec.rest:
            (length,) = _LENGTH.unpack_from(body, at)
            at += 4
            data = body[at : at + length]
            if len(data) != length:
                raise ValueError(f"{length} bytes announced, {len(data)} there")
            at += length
            values.append(data.decode("utf-8", "surrogateescape") if text else data)
        if codec.body:
            values.append(body[at:])
        elif at != len(body):
            raise ValueError(f"{len(body) - at} bytes too many")
        message: Message = codec.new(frame.subject, *values)
    except (struct.error, KeyError, ValueError, OverflowError) as exc:
        name = getattr(codec.new, "__name__", "?")
        raise RemoteProtocolError(f"malformed {name} message: {exc}") from exc
    return message


def largest_body() -> int:
    """Return how many bytes of payload surely fit into a control frame beside its fields."""
    return CONTROL_LIMIT // 2
