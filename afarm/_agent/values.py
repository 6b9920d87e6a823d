"""What a worker loads: functions and put objects by blob, arguments, earlier results."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from .._wire.messages import Run
from .._wire.payloads import Gather, slices, split, unpack_layout
from . import references
from .inbox import Inbox

# Functions kept loaded in a worker, most recently used last. A function that is made
# anew for each call, with new globals, must not fill the worker with its past.
_FUNCTIONS = 256


class Disconnected(Exception):
    """The agent is gone."""


class Values:
    """Loads what calls need, and keeps what further calls will need again.

    Args:
        inbox: Where payloads arrive.
        folder: Where the agent puts the files of large blobs.
    """

    def __init__(self, inbox: Inbox, folder: str) -> None:
        self._inbox = inbox
        self._folder = folder
        self._functions: dict[int, Callable[..., Any]] = {}
        self._objects: dict[int, Any] = {}
        self._groups: Sequence[Sequence[Any]] = ()
        self._loaded: dict[int, Any] = {}
        references.source = self

    def add_function(self, blob: int, pickled: bytes) -> None:
        """Keep the pickle of a function; it is loaded when it is called for the first time."""
        self._functions.pop(blob, None)
        self._functions[blob] = _Pickled(pickled)
        while len(self._functions) > _FUNCTIONS:
            del self._functions[next(iter(self._functions))]

    def function(self, blob: int) -> Callable[..., Any]:
        """Return a function.

        Raises:
            Exception: Whatever unpickling it raises.
        """
        found = self._functions.get(blob)
        if found is None:
            with open(self.path(blob), "rb") as file:
                found = _Pickled(file.read())
        if type(found) is _Pickled:
            loaded: Callable[..., Any] = pickle.loads(found.data)
            self._functions[blob] = loaded
            return loaded
        return found

    def take(self, run: Run) -> Sequence[Sequence[Any]]:
        """Return the parts of a call's payload, writable, as they came or as they come.

        Raises:
            Disconnected: If the agent goes away before all of it is there.
        """
        groups = unpack_layout(run.layout, run.size)
        if run.size == len(run.body):
            if not run.layout:
                return ((run.body,),)
            return [
                [part if n == 0 else bytearray(part) for n, part in enumerate(parts)]
                for parts in slices(run.body, groups)
            ]
        gather = Gather(groups)
        if not self._inbox.gather(gather):
            raise Disconnected
        return gather.groups

    def arguments(self, groups: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments and keyword arguments of a call.

        Raises:
            Exception: Whatever unpickling them raises.
        """
        self._groups = groups
        parts = groups[0]
        try:
            args, kwargs = (
                pickle.loads(parts[0], buffers=parts[1:])
                if len(parts) > 1
                else pickle.loads(parts[0])
            )
            return args, kwargs
        finally:
            self._groups = ()
            if self._loaded:
                self._loaded = {}

    def dependency(self, index: int) -> Any:
        """Return the result of an earlier invocation; see `references`."""
        if index not in self._loaded:
            if not 0 < index < len(self._groups):
                raise RuntimeError(f"the result of another invocation, number {index}, is missing")
            parts = self._groups[index]
            self._loaded[index] = pickle.loads(parts[0], buffers=parts[1:])
        return self._loaded[index]

    def blob(self, blob: int) -> Any:
        """Return a put object; see `references`."""
        if blob not in self._objects:
            parts = split(_mapped(self.path(blob)))
            self._objects[blob] = pickle.loads(parts[0], buffers=parts[1:])
        return self._objects[blob]

    def forget(self, kept: set[int]) -> None:
        """Drop put objects that are not among those kept."""
        for blob in [each for each in self._objects if each not in kept]:
            del self._objects[blob]

    def path(self, blob: int) -> str:
        """Return the file of a blob."""
        return os.path.join(self._folder, str(blob))


class _Pickled:
    """A function that nobody has called yet; loaded at its first call."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self) -> None:
        raise TypeError("not loaded yet")


def _mapped(path: str) -> memoryview:
    """Return a file's content, mapped: writable, and what is written stays private."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)
