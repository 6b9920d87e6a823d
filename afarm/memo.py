"""Which call a call is: the digest of its function, its arguments and its environment.

Calls with one digest are one call, whose result need not be computed twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._wire.payloads import Buffer
from .errors import SerializationError
from .payload.content import Content, TooMuch
from .record import BESIDE, ResultEntry, Results, Writer, digest_of, open_parts

if TYPE_CHECKING:
    from .call import Call
    from .payload import Arguments, PickledFunction
    from .software import Added

log = logging.getLogger("afarm")

# Changed when equal digests would mean something else than before.
_VERSION = "1"

# Bytes of results that are kept at hand after they were given to the writer, which needs a
# quarter of a second until they can be found in the file.
_RECENT = 16 << 20


@dataclass(slots=True, eq=False)
class Question:
    """A call of which it is asked whether it was made before.

    Attributes:
        function: What is called; held until its environment is known.
        content: What the function and the arguments are.
        settings: What else decides on the result: environment variables, the working folder.
        key: The digest of it all, once that is known.
        recalled: Whether its result was there.
        leading: Resolved when the call is over: equal ones wait for that.
    """

    function: Callable[..., Any]
    content: Content
    settings: str
    key: str = ""
    recalled: bool = False
    leading: asyncio.Future[None] | None = field(default=None, repr=False)


def ask(
    function: Callable[..., Any],
    called: tuple[Sequence[Any], Mapping[str, Any]] | None,
    *,
    pickled: PickledFunction,
    arguments: Arguments,
    settings: str,
) -> Question:
    """Return the question about a call as it is now.

    Args:
        function: What is called.
        called: Its arguments. Without them, and if they are too many to be looked at on the
            loop, they are known by their pickle, which for equal ones is mostly, not always,
            the same.
        pickled: The function as nodes get it.
        arguments: The pickled arguments.
        settings: What else decides on the result.
    """
    content = Content()
    try:
        content.add(function)
        if called is None:
            content.add_arguments(arguments)
        else:
            args, kwargs = called
            content.add(tuple(args))
            content.add(dict(kwargs))
    except (TooMuch, SerializationError):
        content = Content()
        content.add_bytes((pickled.data,))
        content.add_arguments(arguments)
    return Question(function, content, settings)


class Memo:
    """The results of earlier calls of one farm.

    Args:
        results: Where they lie.
        writer: Writes the record.
    """

    def __init__(self, results: Results, writer: Writer) -> None:
        self._results = results
        self._writer = writer
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._recent: OrderedDict[str, ResultEntry] = OrderedDict()
        self._recent_size = 0
        self._refs: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._files: dict[str, tuple[int, int, bytes]] = {}
        self._failed = ""

    async def recall(self, call: Call) -> list[Buffer] | None:
        """Return a call's result, if it was made before; an equal call that runs is waited for."""
        question = call.memo
        assert question is not None
        try:
            question.key = await asyncio.to_thread(self._key, question, call)
        except Exception as exc:  # what analysis meets is told when the call itself meets it
            log.debug("%s is not looked for in the record: %r", call.category, exc)
            return None
        while (leader := self._under_way.get(question.key)) is not None:
            await asyncio.wait([leader])
        if call.memo is None:  # cancelled meanwhile: nobody would say that it is over
            return None
        self._under_way[question.key] = question.leading = (
            asyncio.get_running_loop().create_future()
        )
        recent = self._recent.get(question.key)
        if recent is not None and recent.data is not None:
            return open_parts(recent.lengths, recent.data)
        try:
            if recent is not None and recent.file is not None:
                return await asyncio.to_thread(
                    self._results.read, recent.file, recent.lengths, recent.digest
                )
            return await asyncio.to_thread(self._results.find, question.key)
        except Exception as exc:
            self._tell(f"results cannot be read: {exc}")
            return None

    async def keep(self, call: Call, parts: Sequence[Buffer]) -> None:
        """Keep a call's result."""
        question = call.memo
        assert question is not None
        if not question.key:
            return
        lengths = [memoryview(part).nbytes for part in parts]
        size = sum(lengths)
        data = file = None
        try:
            digest = await asyncio.to_thread(digest_of, parts)
            if size > BESIDE:
                file = await asyncio.to_thread(self._results.write, question.key, parts, digest)
            else:
                data = b"".join(parts)
        except OSError as exc:
            self._tell(f"a result of {call.category} cannot be kept: {exc}")
            return
        entry = ResultEntry(
            question.key, call.category, time.time(), size, lengths, data, file, digest
        )
        if not self._writer.result(entry):
            self._tell("results are not kept: the disk cannot follow")
            return
        self._note_recent(entry)

    def _note_recent(self, entry: ResultEntry) -> None:
        """Keep an entry at hand, and let go of the oldest ones."""
        if entry.key in self._recent:
            return
        self._recent[entry.key] = entry
        self._recent_size += _weight(entry)
        while self._recent_size > _RECENT:
            self._recent_size -= _weight(self._recent.popitem(last=False)[1])

    def over(self, question: Question) -> None:
        """Note that a call is over: equal ones that waited may look, or run."""
        if question.leading is not None and not question.leading.done():
            question.leading.set_result(None)
            del self._under_way[question.key]

    def _tell(self, problem: str) -> None:
        if problem != self._failed:
            self._failed = problem
            log.warning("%s", problem)

    # --- what a call is; in threads

    def _key(self, question: Question, call: Call) -> str:
        target = call.target
        if not target.environment:
            target.environment = self._environment(question.function, target.added)
        for ref in question.content.refs:
            if ref not in self._refs:
                self._refs[ref] = digest_of(ref.pieces())
        facts = [
            _VERSION,
            question.content.digest(),
            target.environment,
            question.settings,
            *(self._refs[ref] for ref in question.content.refs),
            *(digest_of(packed.parts()) for packed in call.passed or ()),
        ]
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    def _environment(self, function: Callable[..., Any], added: Added) -> str:
        """Return the digest of the software a function runs with."""
        from .environments import analyze

        found = analyze(function, packages=added.packages, modules=added.modules)
        hashed = hashlib.sha256()
        facts = [sys.implementation.cache_tag or sys.version]
        facts += [f"{each.name}=={each.version}" for each in found.distributions]
        hashed.update("\0".join(facts).encode())
        for tree in found.local:
            for file in tree.files:
                hashed.update(f"\0{tree.name}\0{file.name}\0".encode("utf-8", "surrogateescape"))
                hashed.update(self._digest_of_file(file.path))
        return hashed.hexdigest()

    def _digest_of_file(self, path: str) -> bytes:
        status = os.stat(path)
        known = self._files.get(path)
        if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            known = self._files[path] = status.st_size, status.st_mtime_ns, digest
        return known[2]


def _weight(entry: ResultEntry) -> int:
    """Return the bytes an entry takes, itself included."""
    return len(entry.data or b"") + 500
