"""How a dataclass becomes the body of a frame, and again a dataclass.

The first field is the subject, which travels in the frame's header. The others lie in
their order: numbers first, in one struct together with the lengths of what follows, then
strings and bytes, and last ``body``, which takes the rest.

For each class of messages two functions are written when the first of its kind is encoded
or decoded: a loop over its fields takes four times as long, and every call of every farm
passes through here six times.

Sans-IO, standard library only; used at both ends.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, dataclass_transform

from ..errors import LocalProtocolError, RemoteProtocolError
from ..resources import Resources, Usage, astuple
from .frames import CHECK, CONTROL_LIMIT, HEADER, Frame

_M = TypeVar("_M")
_E = TypeVar("_E", bound=IntEnum)


class Message:
    """What `encode` takes: the base of all messages.

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


KINDS: dict[int, Codec] = {}


@dataclass_transform(frozen_default=True)
def message(kind: int) -> Callable[[type[_M]], type[_M]]:
    """Make a dataclass of a message and register its kind."""

    def decorate(cls: type[_M]) -> type[_M]:
        made = dataclass(slots=True, eq=False, repr=False)(cls)
        made.kind = kind  # type: ignore[attr-defined]
        if kind in KINDS:
            raise TypeError(f"kind {kind} is taken")
        KINDS[kind] = Codec(made)
        return made

    return decorate


# --- resources, which are few and come again and again

_RESOURCES = struct.Struct("<dqqqddq")  # NaN and -1 stand for None
_MOST_PACKED = 1024
_packed: dict[int, tuple[Resources, bytes]] = {}  # by identity: hashing one takes 1 us


def _pack_resources(resources: Resources) -> bytes:
    known = _packed.get(id(resources))
    if known is not None and known[0] is resources:
        return known[1]
    cores, memory, disk, gpus, wall_time, cpu_time, processes = astuple(resources)
    data = _RESOURCES.pack(
        math.nan if cores is None else cores,
        -1 if memory is None else memory,
        -1 if disk is None else disk,
        -1 if gpus is None else gpus,
        math.nan if wall_time is None else wall_time,
        math.nan if cpu_time is None else cpu_time,
        -1 if processes is None else processes,
    )
    if len(_packed) >= _MOST_PACKED:
        _packed.clear()
    _packed[id(resources)] = (resources, data)
    return data


@lru_cache(maxsize=_MOST_PACKED)
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


# --- usage

# What few have travels in a message of its own (`Details`).
_USAGE_FIELDS = [
    (field.name, str(field.type))
    for field in fields(Usage)
    if field.name not in ("curve", "gpu_memory")
]
_USAGE_FORMAT = "".join("d" if kind == "float" else "q" for _, kind in _USAGE_FIELDS)
_USAGE = struct.Struct("<" + _USAGE_FORMAT)
_NO_EXIT = 1 << 40


def unpack_usage(packed: bytes, at: int = 0) -> Usage:
    """Return the usage that lies in a body."""
    measured: list[Any] = list(_USAGE.unpack_from(packed, at))
    if measured[-1] == _NO_EXIT:
        measured[-1] = None
    return Usage(*measured)


# --- the functions that are written for each class


class _Source:
    """The source of one class's two functions, field by field."""

    def __init__(self, cls: type[Any], enums: dict[str, type[IntEnum]]) -> None:
        self.names: dict[str, Any] = {
            "CHECK": CHECK,
            "LIMIT": CONTROL_LIMIT,
            "MESSAGE": cls,
            "USAGE": Usage,
            "NO_EXIT": _NO_EXIT,
            "pack_resources": _pack_resources,
            "unpack_resources": _unpack_resources,
            "LocalProtocolError": LocalProtocolError,
        }
        self.format = ""
        self.packed: list[str] = []  # what the struct takes of message `m`
        self.unpacked: list[str] = []  # the names that it gives
        self.made: list[str] = []  # the arguments of a message
        self.texts: list[tuple[str, bool]] = []
        (self.subject, _), *rest = [(field.name, str(field.type)) for field in fields(cls)]
        self.body = bool(rest) and rest[-1][0] == "body"
        for name, kind in rest[: len(rest) - self.body]:
            if kind in ("str", "bytes"):
                self.texts.append((name, kind == "str"))
            elif self.texts:
                raise TypeError(f"{cls.__name__}: numbers first, then strings and bytes, then body")
            else:
                self._number(name, kind, enums)

    def _number(self, name: str, kind: str, enums: dict[str, type[IntEnum]]) -> None:
        value = f"v_{name}"
        if kind == "Usage":
            self.format += _USAGE_FORMAT
            *measured, exit_ = [each for each, _ in _USAGE_FIELDS]
            self.packed += [f"m.{name}.{each}" for each in measured]
            self.packed.append(f"NO_EXIT if m.{name}.{exit_} is None else m.{name}.{exit_}")
            values = [f"{value}_{each}" for each in measured]
            self.unpacked += [*values, f"{value}_exit"]
            ended = f"None if {value}_exit == NO_EXIT else {value}_exit"
            self.made.append(f"USAGE({', '.join(values)}, {ended})")
            return
        self.unpacked.append(value)
        if kind == "Resources":
            self.format += f"{_RESOURCES.size}s"
            self.packed.append(f"pack_resources(m.{name})")
            self.made.append(f"unpack_resources({value})")
        elif kind in enums:
            self.format += "B"
            self.packed.append(f"m.{name}")
            # Looked up and not called: making a member of an enumeration takes 0.4 us.
            self.names[kind.upper()] = {int(each): each for each in enums[kind]}
            self.made.append(f"{kind.upper()}[{value}]")
        else:
            self.format += {"int": "q", "float": "d", "bool": "?"}[kind]
            self.packed.append(f"m.{name}")
            self.made.append(value)

    def encoder(self, kind: int) -> str:
        """Return the source of a function from a message to its frame."""
        whole = struct.Struct(f"{HEADER.format}{self.format}{len(self.texts)}I")
        self.names["pack"] = whole.pack
        lines = ["def encode(m):"]
        parts = [name for name, _ in self.texts] + (["body"] if self.body else [])
        for name, text in self.texts:
            lines.append(f" {name} = m.{name}")
            if text:
                lines.append(
                    f' {name} = {name}.encode("utf-8", "surrogateescape") if {name} else b""'
                )
        if self.body:
            lines.append(" body = m.body")
        lengths = [f"len({name})" for name, _ in self.texts]
        size = " + ".join(
            [str(whole.size - HEADER.size), *lengths, *(["len(body)"] if self.body else [])]
        )
        values = ", ".join(
            ["size", str(kind), "CHECK", f"m.{self.subject}", *self.packed, *lengths]
        )
        lines += [
            f" size = {size}",
            " if size > LIMIT:",
            '  raise LocalProtocolError(f"{size} bytes do not fit into a frame: {m!r:.300}")',
        ]
        packed = f"pack({values})"
        lines.append(
            f" return {packed}"
            if not parts
            else f" return b''.join(({packed}, {', '.join(parts)}))"
        )
        return "\n".join(lines)

    def decoder(self) -> str:
        """Return the source of a function from a subject and a body to the message."""
        layout = struct.Struct(f"<{self.format}{len(self.texts)}I")
        self.names["unpack"] = layout.unpack_from
        given = [*self.unpacked, *(f"n_{name}" for name, _ in self.texts)]
        lines = ["def decode(subject, body):"]
        if given:
            lines.append(f" {', '.join(given)}, = unpack(body)")
        lines.append(f" at = {layout.size}")
        for name, text in self.texts:
            piece = f"body[at : at + n_{name}]"
            taken = f'{piece}.decode("utf-8", "surrogateescape")' if text else piece
            lines += [
                f" v_{name} = {taken} if n_{name} else {'' if text else b''!r}",
                f" at += n_{name}",
            ]
        lines += [
            " if at > len(body):",
            '  raise ValueError(f"{at} bytes announced, {len(body)} there")',
        ]
        if not self.body:
            lines += [
                " if at < len(body):",
                '  raise ValueError(f"{len(body) - at} bytes too many")',
            ]
        arguments = ["subject", *self.made, *(f"v_{name}" for name, _ in self.texts)]
        if self.body:
            arguments.append("body[at:]")
        lines.append(f" return MESSAGE({', '.join(arguments)})")
        return "\n".join(lines)


class Codec:
    """How one class of messages is encoded and decoded; written at the first use."""

    enums: ClassVar[dict[str, type[IntEnum]]] = {}

    def __init__(self, cls: type[Any]) -> None:
        self.new: Callable[..., Any] = cls
        self.encode: Callable[[Any], bytes] = self._first_encode
        self.decode: Callable[[int, bytes], Any] = self._first_decode

    def _first_encode(self, message: Any) -> bytes:
        self.write()
        return self.encode(message)

    def _first_decode(self, subject: int, body: bytes) -> Any:
        self.write()
        return self.decode(subject, body)

    def write(self) -> None:
        """Write both functions, which takes 0.5 ms."""
        cls: Any = self.new
        source = _Source(cls, self.enums)
        text = f"{source.encoder(cls.kind)}\n{source.decoder()}"
        exec(compile(text, f"<afarm codec of {cls.__name__}>", "exec"), source.names)
        self.encode, self.decode = source.names["encode"], source.names["decode"]


def wire_enum(cls: type[_E]) -> type[_E]:
    """Let fields of messages be of this enumeration."""
    Codec.enums[cls.__name__] = cls
    return cls


def write_ahead(classes: Iterable[type[Message]]) -> None:
    """Write what encodes and decodes these, for all processes that are forked from this one."""
    for each in classes:
        KINDS[each.kind].write()


def encode(message: Message) -> bytes:
    """Return the frame of a message.

    Raises:
        LocalProtocolError: If a field does not fit its type, or the whole one frame.
    """
    try:
        return KINDS[message.kind].encode(message)
    except (struct.error, TypeError, AttributeError, OverflowError) as exc:
        raise LocalProtocolError(f"cannot encode {message!r:.300}: {exc}") from exc


def decode(frame: Frame) -> Message:
    """Return the message of a frame.

    Raises:
        RemoteProtocolError: If the body is not one of its kind; the message names it.
    """
    codec = KINDS.get(frame.kind)
    if codec is None:
        raise RemoteProtocolError(f"a frame of unknown kind {frame.kind}")
    try:
        found: Message = codec.decode(frame.subject, frame.body)
    except (struct.error, KeyError, ValueError, OverflowError) as exc:
        name = getattr(codec.new, "__name__", "?")
        raise RemoteProtocolError(f"malformed {name} message: {exc}") from exc
    return found
