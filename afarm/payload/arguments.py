"""Arguments to bytes, and results back, with large buffers left where they are."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from .._wire.payloads import Buffer
from ..errors import SerializationError
from .needs import NEEDING, Need, need_of
from .pickler import Pickler

# Buffers up to this size are copied when a call is submitted, so that the caller may
# change them afterwards; larger ones are sent from where they are (API: "not copied and
# must not be changed until it is done").
COPY_LIMIT = 1_000_000

# A buffer below this size is cheaper inside the pickle than as a part of its own.
OUT_OF_BAND = 16 << 10

# A pickle above this is read so that other threads run meanwhile.
GENTLY = 256 << 10

# Bytes that are copied in one go, while nobody else runs: about 0.2 ms.
_PIECE = 1 << 20

# Values of these types pickle the same with the C pickler alone, which takes 1 us where
# cloudpickle's takes 15.
_PLAIN = frozenset({int, float, str, bytes, bool, NoneType, complex})


NO_NEEDS: frozenset[Need] = frozenset()


class Passed:
    """Something that stands for a value in arguments: a `Ref`, an `Invocation`."""

    __slots__ = ()

    @abstractmethod
    def _pass(self, arguments: Arguments) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Note in ``arguments`` what is referred to; return how the node finds it."""

    def _needs(self) -> frozenset[Need]:
        """Return what a node must have to unpickle the value."""
        return NO_NEEDS

    def _known_size(self) -> int | None:
        """Return the bytes of the value's pickle, if it is there already."""
        return None


@dataclass(slots=True)
class Packed:
    """A pickle and its out-of-band buffers.

    Attributes:
        pieces: The bytes, in order; the pickle itself may be in several.
        lengths: The length of the pickle, then of each buffer.
    """

    pieces: Sequence[Buffer]
    lengths: Sequence[int]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(self.lengths)

    def parts(self) -> list[Buffer]:
        """Return the pickle, in one, and its buffers."""
        buffers = len(self.lengths) - 1
        pickled = self.pieces[: len(self.pieces) - buffers]
        whole = pickled[0] if len(pickled) == 1 else b"".join(pickled)
        return [whole, *self.pieces[len(self.pieces) - buffers :]]

    @classmethod
    def of_parts(cls, parts: Sequence[Buffer]) -> Packed:
        """Return what arrived as a pickle and its buffers, to be sent on."""
        return Packed(parts, [memoryview(part).nbytes for part in parts])


class Arguments(Packed):
    """The pickled arguments of one call, and what they refer to.

    Attributes:
        invocations: Earlier invocations among them, in the order of their numbers (from 1).
        refs: `Ref`s among them.
        needs: What a node must have to unpickle them.
    """

    __slots__ = ("invocations", "needs", "refs")

    def __init__(self, pieces: Sequence[Buffer] = (), lengths: Sequence[int] = ()) -> None:
        super().__init__(pieces, lengths)
        # Few calls have any: lists of their own would be a third of all that the garbage
        # collector has to look through while many calls wait.
        self.invocations: list[Any] | tuple[()] = ()
        self.refs: list[Any] | tuple[()] = ()
        self.needs: frozenset[Need] = NO_NEEDS

    def add_invocation(self, invocation: Any) -> int:
        """Note an earlier invocation among the arguments; return its number, from 1."""
        if isinstance(self.invocations, tuple):
            self.invocations = []
        self.invocations.append(invocation)
        return len(self.invocations)

    def add_ref(self, ref: Any) -> None:
        """Note a `Ref` among the arguments."""
        if isinstance(self.refs, tuple):
            self.refs = []
        self.refs.append(ref)


class _Pickler(Pickler):
    """A pickler which also knows what stands for a value."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._pieces: list[Buffer] = []
        self._buffers: list[Buffer] = []
        self._needs: set[Need] = set()
        self._ordinary: set[type] = set()  # whose instances are pickled as pickle does it
        super().__init__(self, protocol=5, buffer_callback=self._take_buffer)

    def write(self, data: Buffer) -> int:
        # The C pickler hands large bytes objects over as they are: they are kept, not copied.
        kept = data if type(data) is bytes or len(data) > COPY_LIMIT else bytes(data)
        self._pieces.append(kept)
        return len(data)

    def _take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous: into the pickle
            return True
        if view.nbytes < OUT_OF_BAND:
            return True
        self._buffers.append(bytes(view) if view.nbytes <= COPY_LIMIT else view)
        return False

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in self._ordinary:
            return NotImplemented
        if isinstance(obj, Passed):
            self._needs.update(obj._needs())
            return obj._pass(self._arguments)
        if isinstance(obj, NEEDING):
            need = need_of(obj)
            if need is not None:
                self._needs.add(need)
            return super().reducer_override(obj)
        self._ordinary.add(kind)
        return NotImplemented

    def finish(self, obj: object) -> None:
        self.dump(obj)
        if self._needs:
            self._arguments.needs = frozenset(self._needs)
        pickled = sum(len(piece) for piece in self._pieces)
        self._arguments.pieces = [*self._pieces, *self._buffers]
        self._arguments.lengths = [pickled, *(memoryview(b).nbytes for b in self._buffers)]


def dump_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Return the pickled arguments of a call, as they are now.

    Raises:
        SerializationError: If one cannot be pickled; it says which.
    """
    if not kwargs and all(type(arg) in _PLAIN for arg in args):
        data = pickle.dumps((args, {}), 5)
        return Arguments((data,), (len(data),))
    arguments = Arguments()
    try:
        _Pickler(arguments).finish((args, dict(kwargs)))
    except Exception as exc:  # whatever a __reduce__ of the user's raises
        raise _name_the_part(args, kwargs, exc) from exc
    return arguments


def dump(value: object) -> Arguments:
    """Return a value pickled by itself: what `put` ships, or a result passed on.

    Raises:
        SerializationError: If it cannot be pickled.
    """
    packed = Arguments()
    try:
        _Pickler(packed).finish(value)
    except Exception as exc:  # whatever a __reduce__ of the user's raises
        raise _not_picklable(value, exc) from exc
    if packed.invocations or packed.refs:
        raise SerializationError(
            "an Invocation or a Ref inside an object for put(): pass them as arguments instead",
            part="object",
        )
    return packed


def _not_picklable(value: object, error: Exception) -> SerializationError:
    return SerializationError(
        f"cannot pickle an object of type {type(value).__qualname__}: {error}", part="object"
    )


def dump_into(arguments: Arguments, value: object) -> list[Buffer]:
    """Return a value's pickle and its buffers; note in ``arguments`` what it refers to.

    Raises:
        SerializationError: If it cannot be pickled.
    """
    packed = Arguments()
    packed.invocations, packed.refs = arguments.invocations, arguments.refs
    try:
        _Pickler(packed).finish(value)
    except Exception as exc:  # whatever a __reduce__ of the user's raises
        raise _not_picklable(value, exc) from exc
    arguments.invocations, arguments.refs = packed.invocations, packed.refs
    return packed.parts()


def load(parts: Sequence[Buffer]) -> Any:
    """Return the value of a pickle and its buffers; runs what the pickle says."""
    if len(parts[0]) > GENTLY:
        return pickle.Unpickler(_Reader(parts[0]), buffers=parts[1:]).load()
    return pickle.loads(parts[0], buffers=parts[1:])


class _Reader:
    """A pickle as a file that is read in Python, so that other threads come to their turn.

    `pickle.loads` keeps the interpreter to itself from beginning to end: 0.6 s for 100 MB of
    small integers, also in a thread. Read from this, frame by frame of 64 KiB, it takes
    as long and keeps the loop waiting for 16 ms.
    """

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._at = 0

    def read(self, size: int) -> bytes:
        found = self._view[self._at : self._at + size]
        self._at += len(found)
        return bytes(found)

    def readinto(self, target: Buffer) -> int:
        into = memoryview(target)
        size = min(len(into), len(self._view) - self._at)
        for begin in range(0, size, _PIECE):
            end = min(begin + _PIECE, size)
            into[begin:end] = self._view[self._at + begin : self._at + end]
        self._at += size
        return size

    def readline(self) -> bytes:
        line = bytearray()
        while byte := self.read(1):
            line += byte
            if byte == b"\n":
                break
        return bytes(line)


def _name_the_part(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
) -> SerializationError:
    named = [(f"argument {n}", value) for n, value in enumerate(args, 1)]
    named += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for part, value in named:
        try:
            _Pickler(Arguments()).finish(value)
        except Exception as exc:  # the same error again, now of one argument
            return SerializationError(
                f"{part}, of type {type(value).__qualname__}, cannot be pickled: {exc}; "
                "open files, sockets, locks and generators in the function itself",
                part=part,
            )
    return SerializationError(f"the arguments cannot be pickled: {error}", part="arguments")
