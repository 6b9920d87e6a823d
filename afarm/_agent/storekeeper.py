"""The process that receives bundles and builds environments, so that the agent never waits.

It reads frames from descriptor 0 and answers on descriptor 1:

    Environment     answered at once with `Stored` or `Lost(reason="absent")` for each of its
                    bundles, and with `EnvironmentState` as soon as all of them are there
    Blob, bulk      a bundle; answered with `Credit` as it is consumed, and after its last byte
                    with `Stored`, or with `Lost` and the reason
    Forget          a bundle that will not be sent to its end
    Stop, the end   it exits; what it held may be removed

    Environment,    of which bundles are on their way: `internal.Arriving` when all but modules is
    continued       there, if importing may begin with that (`early`); later its state

What it has answered for stays in the store until it exits. As soon as a bundle is refused,
the environments that wait for it get their `EnvironmentState` with the problem; a new
`Environment` message begins anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .._wire.chunks import ChunkReader
from .._wire.frames import Fragment, FrameReader
from .._wire.messages import (
    TO_AGENT,
    Blob,
    Credit,
    Environment,
    EnvironmentState,
    Forget,
    Lost,
    Message,
    Stop,
    Stored,
    decode,
    encode,
)
from ..errors import RemoteProtocolError
from .build import NO_LINKS, platform_of_interpreter
from .cache import StoreError, default_root, explain
from .early import EarlyEnvironment, Part, can_begin_early
from .internal import Arriving
from .parts import is_module
from .store import DEFAULT_CAP, Store, StoreWriter
from .system import die_with_parent

_Answer: TypeAlias = Arriving | Credit | EnvironmentState | Lost | Stored

# Consumed bytes are told in steps: a sender has 4 MiB of credit for each subject.
_CREDIT_STEP = 1 << 20

_READ = 1 << 18


@dataclass(slots=True, eq=False)
class _Wanted:
    """An environment that somebody waits for."""

    environment: int
    digest: str
    bundles: dict[int, str]  # blob to digest
    early: EarlyEnvironment | None = None
    in_one_piece: bool = False  # imports cannot begin early, or there are none to begin with


class _Arrival:
    """A blob on its way; without a writer, its bytes are let go."""

    def __init__(self, blob: Blob, writer: StoreWriter | None) -> None:
        self.blob = blob.blob
        self.digest = blob.digest
        self.chunks = ChunkReader()
        self.left = blob.size  # bytes of its content
        self.uncredited = 0
        self.forgotten = False
        self.refused = ""
        self.writer = writer
        self.there: list[str] = []  # of its files
        self.first: int | None = None  # files other than modules, still to come
        self.only_modules = False  # are still to come, and that was noticed

    def take_fresh(self) -> list[str]:
        """Return the files that have come since this was last asked."""
        if self.writer is None or self.writer.listed is None:
            return []
        if self.first is None:
            self.first = sum(not is_module(name) for name in self.writer.listed)
        fresh = self.writer.fresh()
        self.first -= sum(not is_module(name) for name in fresh)
        self.there += fresh
        return fresh

    def places(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the names of files that are there, and where each lies now."""
        assert self.writer is not None
        return ((name, self.writer.path_of(name)) for name in names)


class Storekeeper:
    """Answers messages; sans-IO but for the store itself.

    Args:
        store: Where bundles go.
        early: A folder of this agent's alone, on the same file system, for environments in
            which imports begin before all is there; empty: that is not wanted.
    """

    def __init__(self, store: Store, early: str = "") -> None:
        self._store = store
        self._early = early
        self._made = 0  # early environments
        self._owed: list[_Wanted] = []
        self._wanted: list[_Wanted] = []
        self._arrivals: dict[int, _Arrival] = {}
        self._answers: list[_Answer] = []

    def handle(self, message: Message) -> list[_Answer]:
        """Return the answers to a message.

        Raises:
            RemoteProtocolError: If it makes no sense here.
        """
        if isinstance(message, Environment):
            self._begin_environment(message)
        elif isinstance(message, Blob):
            self._begin_blob(message)
        elif isinstance(message, Forget):
            arrival = self._arrivals.get(message.blob)
            if arrival is not None:
                self._give_up(arrival)
                arrival.forgotten = True
        else:
            raise RemoteProtocolError(f"a storekeeper was sent {type(message).__name__}")
        return self._drain()

    def fragment(self, subject: int, data: memoryview) -> list[_Answer]:
        """Return the answers to some bytes of a blob.

        Raises:
            RemoteProtocolError: If no such blob was announced.
        """
        arrival = self._arrivals.get(subject)
        if arrival is None:
            raise RemoteProtocolError(f"bytes of the blob {subject}, which was not announced")
        if arrival.forgotten:
            return []  # it was under way when the farm changed its mind
        for content in arrival.chunks.feed(data):
            arrival.left -= len(content)
            if arrival.left < 0:
                raise RemoteProtocolError(f"more bytes of the blob {subject} than were announced")
            if arrival.writer is not None:
                try:
                    arrival.writer.write(content)
                except StoreError as exc:
                    self._refuse(arrival, str(exc))
        self._pass_on(arrival)
        arrival.uncredited += len(data)
        if arrival.uncredited >= _CREDIT_STEP:
            self._answers.append(Credit(subject, arrival.uncredited))
            arrival.uncredited = 0
        if not arrival.left:
            self._finish(arrival)
        return self._drain()

    def tidy(self) -> None:
        """Do what nobody waits for: make for later sessions what this one has begun early."""
        owed, self._owed = self._owed, []
        for wanted in owed:
            try:
                if wanted.early is not None:
                    wanted.early.protect()
                self._store.environment(wanted.digest, list(wanted.bundles.values()))
            except (OSError, StoreError) as exc:
                # The next session makes it, or says why it cannot be had.
                print(f"an environment is not kept for later: {exc}", file=sys.stderr)

    def close(self) -> None:
        """Give up what is on its way, and let go of the store."""
        for arrival in self._arrivals.values():
            self._give_up(arrival)
        self._store.close()

    def _drain(self) -> list[_Answer]:
        answers, self._answers = self._answers, []
        return answers

    def _begin_environment(self, message: Environment) -> None:
        try:
            wanted, problem = _read_description(message)
        except (ValueError, KeyError, TypeError) as exc:
            raise RemoteProtocolError(
                f"the description of environment {message.environment} is malformed: {exc!r}"
            ) from exc
        if problem:
            self._answers.append(EnvironmentState(message.environment, problem, ""))
            return
        for blob, digest in wanted.bundles.items():
            try:
                there = self._store.has(digest)
            except StoreError as exc:
                self._answers.append(EnvironmentState(message.environment, str(exc), ""))
                return
            self._answers.append(Stored(blob) if there else Lost(blob, "absent"))
        self._wanted = [w for w in self._wanted if w.environment != wanted.environment]
        self._wanted.append(wanted)
        self._build_ready()

    def _pass_on(self, arrival: _Arrival) -> None:
        """Show what has come of a bundle to those who import already, or let them begin."""
        fresh = arrival.take_fresh()
        for wanted in [w for w in self._wanted if arrival.digest in w.bundles.values()]:
            if wanted.early is not None:
                try:
                    wanted.early.link(arrival.digest, arrival.places(fresh))
                except OSError as exc:
                    self._fail(wanted, explain(exc, self._early))
        if arrival.first == 0 and not arrival.only_modules and arrival.left:
            arrival.only_modules = True
            self._begin_early()

    def _begin_early(self) -> None:
        """Let imports begin where all that is to come are modules."""
        for wanted in [w for w in self._wanted if w.early is None and not w.in_one_piece]:
            try:
                parts = self._parts(wanted)
            except StoreError as exc:
                self._fail(wanted, str(exc))
                continue
            if parts is None:
                continue
            if not self._early or not can_begin_early(parts):
                wanted.in_one_piece = True
                continue
            self._made += 1
            folder = os.path.join(self._early, f"{wanted.environment}.{self._made}")
            try:
                wanted.early = EarlyEnvironment(folder, parts)
            except OSError as exc:
                wanted.in_one_piece = True  # without hard links it is copied when all is there
                if exc.errno not in NO_LINKS:
                    self._fail(wanted, explain(exc, self._early))
                continue
            self._answers.append(Arriving(wanted.environment, folder))

    def _parts(self, wanted: _Wanted) -> dict[str, Part] | None:
        """Return what an environment consists of; ``None``: more than modules are to come."""
        arriving = {a.digest: a for a in self._arrivals.values() if a.first == 0}
        parts = {}
        for digest in wanted.bundles.values():
            arrival = arriving.get(digest)
            if arrival is not None and arrival.writer is not None:
                listed = arrival.writer.listed or ()
                parts[digest] = Part(listed, dict(arrival.places(arrival.there)))
            elif self._store.has(digest):
                there = self._store.files(digest)
                parts[digest] = Part(there, there)
            else:
                return None
        return parts

    def _fail(self, wanted: _Wanted, reason: str) -> None:
        """Say that an environment cannot be had."""
        self._wanted.remove(wanted)
        self._answers.append(EnvironmentState(wanted.environment, reason, ""))

    def _begin_blob(self, blob: Blob) -> None:
        known = self._arrivals.get(blob.blob)
        if known is not None and not known.forgotten:
            raise RemoteProtocolError(f"the blob {blob.blob} is announced twice")
        arrival = self._arrivals[blob.blob] = _Arrival(blob, None)
        try:
            # Another farm's storekeeper may have been faster.
            if not self._store.has(blob.digest):
                arrival.writer = self._store.begin(blob.digest, blob.size)
        except StoreError as exc:
            self._refuse(arrival, str(exc))
        if not arrival.left:
            self._finish(arrival)

    def _finish(self, arrival: _Arrival) -> None:
        """Answer for a blob whose last byte has come."""
        del self._arrivals[arrival.blob]
        if arrival.uncredited:
            self._answers.append(Credit(arrival.blob, arrival.uncredited))
        if arrival.writer is not None:
            try:
                arrival.writer.commit()
                arrival.writer = None
            except StoreError as exc:
                self._refuse(arrival, str(exc))
        if arrival.refused:
            self._answers.append(Lost(arrival.blob, arrival.refused))
        else:
            self._answers.append(Stored(arrival.blob))
            self._build_ready()
            self._begin_early()

    def _refuse(self, arrival: _Arrival, reason: str) -> None:
        """Fail what waits for a bundle; what of it is still to come is let go.

        `Lost` is told when its last byte has come: until then it is on its way for everybody.
        """
        self._give_up(arrival)
        arrival.refused = reason
        waiting = [w for w in self._wanted if arrival.digest in w.bundles.values()]
        for wanted in waiting:
            self._fail(wanted, reason)

    def _give_up(self, arrival: _Arrival) -> None:
        if arrival.writer is not None:
            arrival.writer.abort()
            arrival.writer = None

    def _build_ready(self) -> None:
        for wanted in list(self._wanted):
            bundles = list(wanted.bundles.values())
            problem = ""
            notes: list[str] = []
            try:
                if not all(self._store.has(digest) for digest in bundles):
                    continue
                if wanted.early is not None:
                    wanted.early.complete({each: self._store.files(each) for each in bundles})
                    self._owed.append(wanted)
                else:
                    _, notes = self._store.environment(wanted.digest, bundles)
            except StoreError as exc:
                problem = str(exc)
            except OSError as exc:
                problem = explain(exc, self._early)
            self._wanted.remove(wanted)
            self._answers.append(EnvironmentState(wanted.environment, problem, "; ".join(notes)))


class Refusal:
    """Answers in place of a storekeeper whose folder cannot be used.

    Args:
        reason: Why, and what to do.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def handle(self, message: Message) -> list[_Answer]:
        """Return the answers to a message: no environment can be had, no bundle be kept."""
        if isinstance(message, Environment):
            return [EnvironmentState(message.environment, self._reason, "")]
        if isinstance(message, Blob):
            return [Lost(message.blob, self._reason)]
        return []

    def fragment(self, subject: int, data: memoryview) -> list[_Answer]:
        """Let bytes of a bundle go."""
        return []

    def tidy(self) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """There is nothing to let go of."""


def _read_description(message: Environment) -> tuple[_Wanted, str]:
    """Return what an environment is made of, and why it cannot be used here, if so."""
    description = json.loads(message.description)
    bundles = {int(b["blob"]): str(b["digest"]) for b in description["bundles"]}
    wanted = _Wanted(message.environment, str(description["digest"]), bundles)
    wanted.in_one_piece = not description.get("preload")
    if not wanted.digest.isalnum():
        raise ValueError(f"{wanted.digest!r} is not a digest")
    built_for = description.get("platform")
    here = platform_of_interpreter()
    if built_for is None or built_for == here:
        return wanted, ""
    native = ", ".join(str(b["name"]) for b in description["bundles"] if b.get("native"))
    return wanted, (
        f"this node is {here['system']} {here['machine']} with {here['abi']}; the "
        f"environment holds machine code for {built_for['system']} {built_for['machine']} "
        f"with {built_for['abi']}, in {native or 'its bundles'}: use nodes of that kind, or name "
        "a matching interpreter with python="
    )


def serve(keeper: Storekeeper | Refusal, source: int, sink: int, leftover: bytes = b"") -> None:
    """Read frames from one descriptor and answer on the other, until the end of input.

    Raises:
        RemoteProtocolError: If what arrives makes no sense.
    """
    reader = FrameReader(TO_AGENT)
    data = leftover
    while True:
        answers: list[_Answer] = []
        for part in reader.feed(data):
            if isinstance(part, Fragment):
                answers += keeper.fragment(part.subject, part.data)
                continue
            message = decode(part)
            if isinstance(message, Stop):
                return
            answers += keeper.handle(message)
            if answers:
                # Building takes its time: what is known is told before the next message.
                _write(sink, answers)
                answers = []
        _write(sink, answers)
        keeper.tidy()
        data = os.read(source, _READ)
        if not data:
            return


def main(leftover: bytes = b"") -> None:
    """Serve on descriptors 0 and 1.

    Arguments: the role, the store's folder, its cap in bytes, the folder of early environments.
    """
    die_with_parent(signal.SIGKILL, os.getppid())
    _raise_descriptor_limit()
    sink = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not print into the frames
    arguments = sys.argv[2:]
    root = default_root(arguments[0] if arguments else "")
    cap = int(arguments[1]) if len(arguments) > 1 and arguments[1] else DEFAULT_CAP
    early = arguments[2] if len(arguments) > 2 else ""
    keeper: Storekeeper | Refusal
    try:
        keeper = Storekeeper(Store(root, cap), early)
    except OSError as exc:
        keeper = Refusal(explain(exc, root))
    except StoreError as exc:
        keeper = Refusal(str(exc))
    try:
        serve(keeper, 0, sink, leftover)
    except BrokenPipeError:
        return  # the agent is gone
    finally:
        keeper.close()


def _write(sink: int, answers: list[_Answer]) -> None:
    view = memoryview(b"".join(encode(answer) for answer in answers))
    while view:
        view = view[os.write(sink, view) :]


def _raise_descriptor_limit() -> None:
    """Each bundle in use takes a descriptor for its lease."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
