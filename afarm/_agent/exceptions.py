"""Exceptions to bytes and back, with their chains.

The pickle of an exception holds its type, arguments and attributes, but neither
``__cause__`` nor ``__context__``, and chains may be cyclic. So each exception that can
be reached is pickled by itself, and those inside it (the members of a group, one given
as an argument) by their number.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

# A chain longer than this is cut: nobody reads it, and each link is pickled by itself.
_MOST = 200

_Record = tuple[bytes, int, int, bool, list[str]]


class _Pickler:
    """What `dump` needs of a pickler class: made per exception, with numbers for the others."""

    def __init__(self, base: Callable[..., Any]) -> None:
        class Numbering(base):  # type: ignore[misc, valid-type]  # cloudpickle's or pickle's
            root: BaseException
            number: Callable[[BaseException], int]

            def persistent_id(self, obj: object) -> int | None:
                if isinstance(obj, BaseException) and obj is not self.root:
                    return self.number(obj)
                return None

        self._class = Numbering

    def dump(self, exc: BaseException, number: Callable[[BaseException], int]) -> bytes:
        buffer = io.BytesIO()
        pickler = self._class(buffer, protocol=5)
        pickler.root = exc
        pickler.number = number
        pickler.dump(exc)
        return buffer.getvalue()


def dump(exc: BaseException, pickler: Callable[..., Any] = pickle.Pickler) -> bytes:
    """Return an exception and everything its chain reaches as bytes for `load` or `pickle.loads`.

    Args:
        exc: The exception; its traceback is left out.
        pickler: cloudpickle's class, where types made in ``__main__`` are to travel.

    Raises:
        Exception: Whatever pickling one of them raises.
    """
    reached: list[BaseException] = []
    numbers: dict[int, int] = {}

    def number(other: BaseException | None) -> int:
        if other is None:
            return -1
        if id(other) not in numbers:
            if len(reached) >= _MOST:
                return -1
            numbers[id(other)] = len(reached)
            reached.append(other)
        return numbers[id(other)]

    def member(other: BaseException) -> int:
        if (found := number(other)) < 0:
            raise ValueError(f"more than {_MOST} exceptions hang together")
        return found

    number(exc)
    numbering = _Pickler(pickler)
    records: list[_Record] = []
    for each in reached:  # grows while it is walked
        pickled = numbering.dump(each, member)
        notes = [str(note) for note in getattr(each, "__notes__", ())]
        records.append(
            (
                pickled,
                number(each.__cause__),
                number(each.__context__),
                each.__suppress_context__,
                notes,
            )
        )
    return pickle.dumps(_Chain(records), 5)


class _Unpickler(pickle.Unpickler):
    """The other end of `_Pickler`. A class: Python 3.13.0 takes no such method of an instance."""

    def __init__(self, data: bytes, get: Callable[[int], BaseException]) -> None:
        super().__init__(io.BytesIO(data))
        self._get = get

    def persistent_load(self, pid: int) -> BaseException:
        return self._get(pid)


class _Chain:
    """Pickled as a call of `rebuild`, so that plain `pickle.loads` returns the exception."""

    def __init__(self, records: list[_Record]) -> None:
        self._records = records

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return rebuild, (self._records,)


def load(data: bytes) -> BaseException:
    """Return the exception that was dumped, with its chain.

    Raises:
        Exception: Whatever unpickling raises; `ValueError` if it is no exception.
    """
    exc = pickle.loads(data)
    if not isinstance(exc, BaseException):
        raise ValueError(f"unpickled as a {type(exc).__name__}, which is no exception")
    return exc


def rebuild(records: list[_Record]) -> BaseException:
    """Return the first of these exceptions, with all of them linked as they were.

    Raises:
        Exception: Whatever unpickling raises; `ValueError` if it is not what was dumped.
    """
    loaded: dict[int, BaseException] = {}
    loading: set[int] = set()

    def get(index: int) -> BaseException:
        if index not in loaded:
            if index in loading:
                raise ValueError("an exception is an argument of itself")
            loading.add(index)
            exc = _Unpickler(records[index][0], get).load()
            if not isinstance(exc, BaseException):
                raise ValueError(f"unpickled as a {type(exc).__name__}, which is no exception")
            loaded[index] = exc
        return loaded[index]

    for index, (_, cause, context, suppress, notes) in enumerate(records):
        exc = get(index)
        exc.__cause__ = None if cause < 0 else get(cause)
        exc.__context__ = None if context < 0 else get(context)
        exc.__suppress_context__ = suppress
        if notes and not getattr(exc, "__notes__", None):
            for note in notes:
                exc.add_note(note)
    return get(0)


def dump_if_it_survives(exc: BaseException, pickler: Callable[..., Any]) -> bytes | None:
    """Return an exception as bytes, or ``None`` if it would not come back as what it is."""
    try:
        data = dump(exc, pickler)
        back = load(data)
    except Exception:  # whatever the user's constructors and reducers raise
        return None
    return data if type(back).__qualname__ == type(exc).__qualname__ else None
