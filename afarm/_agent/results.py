"""Results and failures of a call as payloads: pickles with their buffers beside them."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from types import NoneType, TracebackType
from typing import Any

from .._wire.payloads import Buffer
from .exceptions import dump_if_it_survives

# A buffer below this size is cheaper inside the pickle than as a part of its own.
_OUT_OF_BAND = 16 << 10

# These pickle in one call of the C pickler.
_PLAIN = frozenset({NoneType, bool, int, float, complex})

# What would end or confuse the loop that waits for the result: told, but not raised there.
_NOT_TO_BE_RAISED = (KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)

# The end of a traceback that is longer than this says nothing new (RecursionError).
_LONGEST_TEXT = 200_000


class Payload:
    """A pickle and its out-of-band buffers.

    Attributes:
        parts: The pickle in its pieces, then the buffers.
        lengths: The length of the pickle, and of each buffer.
        size: Bytes of all of them.
    """

    __slots__ = ("lengths", "parts", "size")

    def __init__(self, parts: list[Buffer], lengths: list[int]) -> None:
        self.parts = parts
        self.lengths = lengths
        self.size = sum(lengths)


class _Pieces:
    """Where a pickler writes to; the C pickler hands large bytes over without copying them."""

    def __init__(self) -> None:
        self.pieces: list[Buffer] = []
        self.buffers: list[Buffer] = []

    def write(self, data: Buffer) -> int:
        # What is not bytes is a view of the pickler's own buffer.
        self.pieces.append(data if type(data) is bytes else bytes(data))
        return len(data)

    def take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a buffer out of the pickle; return whether it must go into it after all."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < _OUT_OF_BAND:
            return True
        self.buffers.append(view)
        return False

    def payload(self) -> Payload:
        """Return what was written."""
        pickled = sum(len(piece) for piece in self.pieces)
        lengths = [pickled, *(memoryview(buffer).nbytes for buffer in self.buffers)]
        return Payload(self.pieces + self.buffers, lengths)


def cloud_pickler() -> Callable[..., Any]:
    """Return cloudpickle's pickler, which takes what has no module: lambdas, `__main__`."""
    from . import by_value

    return by_value.pickler()


def dump_result(value: object) -> Payload:
    """Return a result as a payload.

    pickle alone takes 1 us where cloudpickle takes 15, and where it cannot find a
    function or class under its name it says so; then cloudpickle is asked.

    Raises:
        Exception: Whatever pickling it raises.
    """
    if type(value) in _PLAIN or (type(value) in (str, bytes) and sys.getsizeof(value) < 4096):
        data = pickle.dumps(value, 5)
        return Payload([data], [len(data)])
    into = _Pieces()
    try:
        pickle.Pickler(into, 5, buffer_callback=into.take_buffer).dump(value)
    except Exception:  # whatever a __reduce__ raises: cloudpickle may know better
        into = _Pieces()
        cloud_pickler()(into, 5, buffer_callback=into.take_buffer).dump(value)
    return into.payload()


def dump_failure(exc: BaseException, detail: str = "") -> Payload:
    """Return an exception as a payload: its type, text, traceback, and itself if it survives."""
    kind = type(exc)
    pickled = None
    if not isinstance(exc, _NOT_TO_BE_RAISED) and not _is_cancelled(exc):
        pickled = dump_if_it_survives(exc, cloud_pickler())
    record = (
        f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        _text(exc),
        format_traceback(exc),
        pickled,
        detail,
    )
    data = pickle.dumps(record, 5)
    return Payload([data], [len(data)])


def _is_cancelled(exc: BaseException) -> bool:
    # Imported nowhere on a node unless the function uses it.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(exc, asyncio.CancelledError)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:  # a __str__ of the user's
        return f"<its text cannot be had: {error!r}>"


def format_traceback(exc: BaseException) -> str:
    """Return the traceback as Python prints it, without the frames of the worker."""
    try:
        lines = traceback.TracebackException(type(exc), exc, _user_part(exc.__traceback__))
        text = "".join(lines.format())
    except Exception as error:  # a __str__ or a source loader of the user's
        return f"{type(exc).__qualname__}: its traceback cannot be shown: {error!r}\n"
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT // 2] + "\n...\n" + text[-_LONGEST_TEXT // 2 :]
    return text


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is not ours."""
    ours = __name__.rpartition(".")[0] + "."
    first = tb
    while first is not None and first.tb_frame.f_globals.get("__name__", "").startswith(ours):
        first = first.tb_next
    return first if first is not None else tb
