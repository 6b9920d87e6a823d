"""A digest of what something is: the same in every process in which it is the same.

Pickles are not: sets have an order of their own in each process, and whether two equal
strings are one object decides what is written. So what is made of plain values is
described by its content, and code by what it does, without file names and lines.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import marshal
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .._wire.payloads import Buffer
from ..errors import SerializationError
from .arguments import Arguments, Passed, dump_into
from .importing import importable


def code_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's own code; of its name, where it has none in Python."""
    seen = unwrapped(function)
    code = getattr(seen, "__code__", None)
    if isinstance(code, types.CodeType):
        return _digest_of_code(code)
    kind = seen if isinstance(seen, type) else type(seen)
    name = getattr(seen, "__qualname__", kind.__qualname__)
    return hashlib.sha256(f"{kind.__module__}.{name}".encode()).hexdigest()[:32]


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside partials and bound methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        else:
            return function


@functools.lru_cache(maxsize=1024)
def _digest_of_code(code: types.CodeType) -> str:
    return hashlib.sha256(b"".join(describe_code(code))).hexdigest()[:32]


def describe_code(code: types.CodeType) -> Iterator[bytes]:
    """Yield what decides what a code object does, and its name."""
    facts = (
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_exceptiontable,
    )
    yield b"code"
    yield plain(facts)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from describe_code(constant)
        else:
            yield plain(constant)


def plain(value: object) -> bytes:
    """Return the bytes of a value made of plain ones: numbers, text, containers of them.

    Version 2 of the format writes no references, so that equal values are equal bytes, and
    sets in an order that does not depend on the process.
    """
    return marshal.dumps(value, 2)  # type: ignore[arg-type]  # ValueError if it is not


# Containers and objects that are looked into one by one, about 2 us each; who has more is
# described by its pickle as a whole, which may differ where the content does not.
_MOST_LOOKED_AT = 5_000

# Bytes from this size on are hashed where they are.
_REFERRED_TO = 64 << 10

_PLAIN = frozenset({int, float, str, bytes, bool, complex, types.NoneType, types.EllipsisType})

# Of a class that was made at run time, as all that are written in Python (object.h).
_HEAP_TYPE = 1 << 9

# What is no part of what a class does: made for it, or said otherwise.
_OF_EVERY_CLASS = frozenset(
    {
        "__annotations__",
        "__dataclass_fields__",  # its __init__ has the defaults
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

# What code looks up in its module.
_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})


class TooMuch(Exception):
    """There is too much of it to be looked at on the loop."""


class Content:
    """What some values are, gathered to be hashed; large buffers are referred to, not copied.

    Attributes:
        invocations: Earlier invocations among them: what they are is their result.
        refs: `Ref`s among them: what they are is their object.
    """

    def __init__(self) -> None:
        self._pieces: list[Buffer] = []
        self._arguments = Arguments()
        self._left = _MOST_LOOKED_AT
        self._seen: dict[int, int] = {}  # functions and containers that are being looked at

    @property
    def invocations(self) -> Sequence[Any]:
        """Earlier invocations, in the order in which they were found."""
        return self._arguments.invocations

    @property
    def refs(self) -> Sequence[Any]:
        """Objects that were put, in the order in which they were found."""
        return self._arguments.refs

    def add(self, value: object) -> None:
        """Take a value as it is now.

        Raises:
            TooMuch: If that would take long; what was added is then of no use.
            SerializationError: If it cannot be pickled.
        """
        kind = type(value)
        if kind in _PLAIN:
            self._add_plain(value)
        elif kind in (list, tuple, set, frozenset, dict):
            self._once(value, self._add_container)
        elif isinstance(value, Passed):
            self._add_passed(value)
        elif kind in (types.FunctionType, types.MethodType, functools.partial):
            self._once(value, self._add_function)
        elif isinstance(value, type):
            self._once(value, self._add_class)
        elif importable(kind) or not kind.__flags__ & _HEAP_TYPE:
            self._add_opaque(value)
        else:
            self._once(value, self._add_instance)

    def refer(self, ref: Any) -> None:
        """Note a `Ref`, or a file, on whose content it depends."""
        self._arguments.add_ref(ref)

    def add_arguments(self, arguments: Arguments) -> None:
        """Take the arguments of a call by their pickle."""
        self.add_bytes(arguments.parts())
        for ref in arguments.refs:
            self.refer(ref)

    def add_bytes(self, parts: Sequence[Buffer]) -> None:
        """Take bytes as they are: a payload."""
        self._mark(b"bytes", len(parts))
        for part in parts:
            self._mark(b"part", memoryview(part).nbytes)
            self._pieces.append(part)

    def digest(self) -> str:
        """Return the digest of all that was added; takes 1 ms for each MB or two."""
        hashed = hashlib.sha256()
        for piece in self._pieces:
            hashed.update(piece)
        return hashed.hexdigest()

    # --- kinds of values

    def _mark(self, kind: bytes, number: int = 0) -> None:
        self._pieces.append(b"<%s %d>" % (kind, number))

    def _add_plain(self, value: object) -> None:
        if type(value) is bytes and len(value) > _REFERRED_TO:
            self._mark(b"large", len(value))
            self._pieces.append(value)
            return
        data = plain(value)
        self._mark(b"plain", len(data))
        self._pieces.append(data)

    def _once(self, value: Any, add: Callable[[Any], None]) -> None:
        """Add what may contain itself: the second time, its place is enough."""
        known = self._seen.get(id(value))
        if known is not None:
            self._mark(b"again", known)
            return
        self._left -= 1
        if self._left < 0:
            raise TooMuch
        self._seen[id(value)] = len(self._seen)
        add(value)
        # Two equal lists and the same list twice are the same to whoever only reads them.
        del self._seen[id(value)]

    def _add_container(self, value: Any) -> None:
        kind = type(value)
        items = (*value, *value.values()) if kind is dict else value
        if _PLAIN.issuperset(map(type, items)):
            self._add_plain(value)
            return
        self._mark(kind.__name__.encode(), len(value))
        if kind is dict:
            for key, item in value.items():
                self.add(key)
                self.add(item)
        elif kind in (set, frozenset):
            self._add_set(value)
        else:
            for item in value:
                self.add(item)

    def _add_set(self, items: Iterable[object]) -> None:
        found = []
        for item in items:
            inner = Content()
            inner._left = self._left
            inner._seen = self._seen
            inner.add(item)
            self._left = inner._left
            if inner.invocations or inner.refs:
                raise TooMuch  # an order of theirs there is not
            found.append(inner.digest())
        self._add_plain(sorted(found))

    def _add_passed(self, value: Passed) -> None:
        refs = len(self._arguments.refs)
        value._pass(self._arguments)
        is_ref = len(self._arguments.refs) > refs
        self._mark(b"ref" if is_ref else b"invocation", 0)

    def _add_opaque(self, value: object) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooMuch
        parts = dump_into(self._arguments, value)
        self._mark(b"pickle")
        self.add_bytes(parts)

    def _add_class(self, cls: type) -> None:
        """Add a class: by its name, or by what it defines, where that is all there is.

        Its pickle by value would name it by a random number.
        """
        if importable(cls):
            self._mark(b"import")
            self._add_plain((cls.__module__, cls.__qualname__))
            return
        self._mark(b"class")
        self._add_plain(cls.__qualname__)
        self.add(cls.__bases__)
        annotations = vars(cls).get("__annotations__", {})
        self._add_plain([(name, repr(kind)) for name, kind in annotations.items()])
        for name, value in sorted(vars(cls).items()):
            if name not in _OF_EVERY_CLASS:
                self._add_plain(name)
                self._add_member(value)

    def _add_member(self, value: Any) -> None:
        if isinstance(value, (staticmethod, classmethod)):
            self._mark(type(value).__name__.encode())
            self.add(value.__func__)
        elif isinstance(value, property):
            for each in (value.fget, value.fset, value.fdel):
                self.add(each)
        elif isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            self._mark(b"slot")
        else:
            self.add(value)

    def _add_instance(self, value: Any) -> None:
        """Add an object of such a class by what its pickle would be made of."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as exc:  # the user's code, or that of a lock
            raise SerializationError(f"cannot pickle {type(value)}: {exc}", part="object") from exc
        if isinstance(reduced, str):  # the name of a global
            self._mark(b"global")
            self.add(type(value))
            self._add_plain(reduced)
            return
        self._mark(b"object", len(reduced))
        for at, part in enumerate(reduced):
            # Items of lists and dictionaries come as iterators.
            self.add(list(part) if at in (3, 4) and part is not None else part)

    def _add_function(self, function: Any) -> None:
        if isinstance(function, functools.partial):
            self._mark(b"partial")
            for each in (function.func, function.args, function.keywords):
                self.add(each)
        elif isinstance(function, types.MethodType):
            self._mark(b"method")
            self.add(function.__func__)
            self.add(function.__self__)
        elif importable(function):
            # What is in its module, the digest of the environment says.
            self._mark(b"import")
            self._add_plain((function.__module__, function.__qualname__))
        else:
            self._add_code_and_state(function)

    def _add_code_and_state(self, function: types.FunctionType) -> None:
        self._mark(b"function")
        for piece in describe_code(function.__code__):
            self.add_bytes((piece,))
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)
        self.add(function.__dict__)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not filled yet
                self._mark(b"empty")
        for name in global_names(function.__code__):
            if name in function.__globals__:
                self._add_plain(name)
                found = function.__globals__[name]
                if isinstance(found, types.ModuleType):
                    self._add_plain(found.__name__)
                else:
                    self.add(found)


@functools.lru_cache(maxsize=1024)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the global names that a code object and those inside it look up, sorted."""
    found = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in _GLOBAL_OPS
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(global_names(constant))
    return tuple(sorted(found))
