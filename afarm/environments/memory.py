"""What was found out about a function, until something that it refers to is another one."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from .scan import Binding, token_of

T = TypeVar("T")

_MOST_CODES = 512


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    found: T
    bindings: tuple[Binding, ...]
    carried: tuple[object, ...]
    path: tuple[str, ...]

    def holds(self, carried: tuple[object, ...], path: tuple[str, ...]) -> bool:
        return (
            self.carried == carried
            and self.path == path
            and all(binding.holds() for binding in self.bindings)
        )


class Memory(Generic[T]):
    """Remembers by function, and by code for functions that are made anew in a loop.

    A function made from known code is taken for known only if all it carries are
    modules, functions, classes and plain data. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_function: WeakKeyDictionary[FunctionType, dict[Hashable, _Entry[T]]]
        self._by_function = WeakKeyDictionary()
        self._by_code: OrderedDict[tuple[CodeType, Hashable], _Entry[T]] = OrderedDict()

    def get(
        self,
        fn: Callable[..., object],
        options: Hashable,
        find: Callable[[], tuple[T, tuple[Binding, ...]]],
    ) -> T:
        """Return what is known of a function, finding it out if need be.

        Args:
            fn: The function; of other callables nothing is remembered.
            options: What else the answer depends on.
            find: Returns the answer and the global names that it rests on.
        """
        if not isinstance(fn, FunctionType):
            return find()[0]
        path = tuple(sys.path)
        carried = _carried(fn)
        # A number stands for a value told by its identity alone: see `token_of`.
        portable = not any(isinstance(token, int) for token in carried)
        code = (fn.__code__, options)
        with self._lock:
            for entry in (
                self._by_function.get(fn, {}).get(options),
                self._by_code.get(code) if portable else None,
            ):
                if entry is not None and entry.holds(carried, path):
                    return entry.found
        found, bindings = find()
        entry = _Entry(found, bindings, carried, path)
        with self._lock:
            self._by_function.setdefault(fn, {})[options] = entry
            if portable:
                self._by_code[code] = entry
                while len(self._by_code) > _MOST_CODES:
                    self._by_code.popitem(last=False)
        return found


def _carried(fn: FunctionType) -> tuple[object, ...]:
    """Return tokens of what a function carries beside its code and globals."""
    tokens: list[object] = [fn.__globals__.get("__name__")]
    for cell in fn.__closure__ or ():
        try:
            tokens.append(token_of(cell.cell_contents))
        except ValueError:
            tokens.append(None)  # not assigned yet
    for default in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
        tokens.append(token_of(default))
    return tuple(tokens)
