"""Templates, supervisors and workers, as the agent holds them.

A template is kept for each environment and number of threads, a *slot* is a supervisor
with its workers. Slots are made when they are needed and kept for the next call.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from .._monitor import tree
from .._wire.frames import Fragment, Frame
from .._wire.messages import Message, Missing, decode, encode
from ..errors import RemoteProtocolError
from ..resources import Usage
from . import internal, page
from .channel import Channel
from .grouping import Groups
from .loop import Loop
from .spawn import spawn
from .system import put_first
from .template import Plan
from .variables import variables_for

# What a worker may send: results of the farm's protocol, and what else it has to say.
_FROM_WORKER = frozenset({67, 68, 69, Missing.kind, internal.Imported.kind})

# Templates kept; each holds what its environment imports, 20 to 200 MB. One for each
# environment and number of threads; more are kept only while they are in use.
_TEMPLATES = 8

# Modules that supervisors are told to read ahead.
_MOST_IMPORTED = 2000

# The end of what a template printed, for when it does not come up.
_NOISE = 4096


@dataclass(frozen=True, slots=True)
class Key:
    """What a template is made for: an environment, and how many threads its calls may use."""

    environment: int
    threads: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a template of an environment.

    Attributes:
        executable: The interpreter.
        path: Entries of ``sys.path``, where it is in place; empty: the interpreter's own.
        preload: Modules to import before the first fork.
        early: The folder of the environment, while modules of it are still to come.
        patient: To import nothing before all is there.
    """

    executable: str
    path: list[str] = field(default_factory=list)
    preload: list[str] = field(default_factory=list)
    early: str = ""
    patient: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """A worker.

    Attributes:
        sent: The attempts in its inbox, the one it runs first.
        sequence: How many calls it has been given.
        functions: Blobs of functions it has.
        devices: The GPUs that its calls see.
        handing: The attempt whose result's bytes are on their way, and how many are left.
    """

    number: int
    pid: int
    slot: Slot
    channel: Channel
    words: memoryview
    sent: deque[Any] = field(default_factory=deque)
    sequence: int = 0
    functions: set[int] = field(default_factory=set)
    devices: tuple[str, ...] = ()
    handing: Any = None
    handing_left: int = 0
    leaving: bool = False
    relaying: Any = None
    settling: Any = None
    gone: Any = None  # how it ended, while what it sent is still being read
    deferred: deque[Frame | bytes] = field(default_factory=deque)
    checked: int = -1
    watched: float = 0.0  # when its supervisor was last told that it gets calls
    watched_limits: Any = None
    watched_expected: int = 0


@dataclass(slots=True, eq=False)
class Slot:
    """A supervisor and its workers."""

    number: int
    template: Template
    channel: Channel
    page: page.Page
    workers: dict[int, Worker] = field(default_factory=dict)
    spare: Worker | None = None
    attempt: Any = None  # who holds it
    pid: int = 0  # the supervisor's
    started: bool = False  # it has had a worker, and so will have another
    idle_since: float = 0.0


@dataclass(slots=True, eq=False)
class Template:
    """A template process."""

    number: int
    key: Key
    recipe: Recipe
    pid: int
    channel: Channel
    noise: int  # the descriptor of what it prints
    ready: bool = False
    notes: str = ""
    used: float = 0.0  # when one of its slots was last taken or made
    heard: bytearray = field(default_factory=bytearray)
    imported: dict[str, None] = field(default_factory=dict)  # what its workers were seen to import
    slots: set[int] = field(default_factory=set)
    forking: int = 0


class Owner(Protocol):
    """Who is told of what happens in the pool."""

    def on_template(self, template: Template, problem: str, notes: str) -> None:
        """A template is ready, or will never be."""

    def on_spare(self, slot: Slot) -> None:
        """A slot has a worker that waits for a call."""

    def on_worker_frame(self, worker: Worker, frame: Frame) -> None:
        """A worker says something."""

    def on_worker_bulk(self, worker: Worker, data: memoryview) -> None:
        """Bytes of a worker's result have come."""

    def on_missing(self, worker: Worker, missing: Missing) -> None:
        """A worker waits for a module."""

    def on_supervisor(self, worker: Worker, message: Message) -> None:
        """A supervisor says something of a worker."""

    def on_gone(self, worker: Worker, gone: internal.WorkerGone) -> None:
        """A worker is gone, and everything that it sent was read."""

    def before_slot_lost(self) -> None:
        """A supervisor has died: what its workers started must be ended."""

    def on_slot_lost(self, slot: Slot) -> None:
        """A supervisor is gone, and its workers with it."""

    def read_size(self, worker: Worker) -> int:
        """How much may be read from a worker now; 0: nothing until `Pool.resume`."""


class Pool:
    """Starts, keeps and ends the processes that run calls.

    Args:
        loop: The agent's loop.
        owner: Who is told what happens.
        hash_seed: For all of them.
        folders: The folders of calls and of blobs.
        groups: The control groups of calls.
        variables: Environment variables of their own.
    """

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        hash_seed: int,
        folders: tuple[str, str],
        groups: Groups,
        variables: Mapping[str, str],
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._hash_seed = hash_seed
        self._folders = folders
        self._groups = groups
        self._variables = variables
        self._templates: dict[Key, Template] = {}
        self._slots: dict[int, Slot] = {}
        self._idle: dict[Key, list[Slot]] = {}
        self._found: dict[int, list[bytes]] = {}  # of each environment, what its workers missed
        self._count = 0

    @property
    def pids(self) -> set[int]:
        """The processes that were started here and are children of the agent."""
        return {template.pid for template in self._templates.values()}

    @property
    def slots(self) -> list[Slot]:
        """All slots."""
        return list(self._slots.values())

    # --- slots

    def take(self, key: Key, reuse: bool) -> Slot | None:
        """Return an idle slot with a worker in it, or ``None``; a fresh one unless ``reuse``."""
        idle = self._idle.get(key, [])
        for slot in reversed(idle):  # last in, first out: its memory is warm
            if slot.spare is not None and (reuse or not slot.spare.sequence):
                idle.remove(slot)
                slot.template.used = self._loop.now
                return slot
        return None

    def give_back(self, slot: Slot) -> None:
        """A slot is not needed any more."""
        slot.attempt = None
        slot.idle_since = self._loop.now
        if slot.number in self._slots and slot.spare is not None:
            self._idle.setdefault(slot.template.key, []).append(slot)

    def coming(self, key: Key) -> int:
        """Return how many free slots of this kind will have a worker soon."""
        template = self._templates.get(key)
        if template is None:
            return 0
        numbers = template.slots
        free = [self._slots[n] for n in numbers if self._slots[n].attempt is None]
        started = sum(1 for slot in free if slot.spare is None and slot.started)
        return template.forking + started

    def add_slot(self, key: Key, recipe: Recipe) -> None:
        """Make one more slot; `Owner.on_spare` tells when it can be used."""
        template = self.template(key, recipe)
        template.forking += 1
        if template.ready:
            self._fork(template)

    def _fork(self, template: Template) -> None:
        self._count += 1
        theirs, ours = socket.socketpair()
        descriptor = page.create()
        channel = Channel(ours, internal.TO_AGENT)
        slot = Slot(self._count, template, channel, page.Page(os.dup(descriptor)))
        self._slots[slot.number] = slot
        template.slots.add(slot.number)
        self._loop.read(ours.fileno(), lambda: self._read_supervisor(slot))
        with contextlib.suppress(OSError):  # a template that is gone is noticed by reading
            template.channel.send_with(
                encode(internal.Fork(slot.number)), [theirs.detach(), descriptor]
            )
        for found in self._found.get(template.key.environment, ()):
            slot.channel.send(found)
            self._loop.touch(slot.channel)
        if template.imported:
            self._prepare(slot, template.imported)

    def _prepare(self, slot: Slot, names: Iterable[str]) -> None:
        """Have a supervisor read modules before it forks its next workers."""
        slot.channel.send(encode(internal.Prepare(slot.number, "\n".join(names))))
        self._loop.touch(slot.channel)

    def spread(self, environment: int, found: internal.Found) -> None:
        """Tell all supervisors of an environment, those to come as well, where a module is."""
        data = encode(found)
        self._found.setdefault(environment, []).append(data)
        for slot in self._slots.values():
            if slot.template.key.environment == environment:
                slot.channel.send(data)
                self._loop.touch(slot.channel)

    def _learn(self, template: Template, names: Iterable[str]) -> None:
        """Note what a worker has imported, for all that will be forked."""
        new = dict.fromkeys(name for name in names if name not in template.imported)
        if new and len(template.imported) < _MOST_IMPORTED:
            template.imported.update(new)
            for number in template.slots:
                self._prepare(self._slots[number], new)

    def _read_supervisor(self, slot: Slot) -> None:
        found = self._safely(slot.channel.receive_descriptors)
        if found is None:
            self._lose_slot(slot)
            return
        for frame in found:
            if isinstance(frame, Fragment):
                continue
            message = decode(frame)
            if isinstance(message, internal.WorkerReady):
                self._add_worker(slot, message)
            else:
                self._hear_supervisor(slot, message)

    def _hear_supervisor(self, slot: Slot, message: Message) -> None:
        worker = slot.workers.get(message.worker)  # type: ignore[attr-defined]
        if worker is None:
            return
        if isinstance(message, internal.WorkerGone):
            self._bury(worker, message)
        else:
            self._owner.on_supervisor(worker, message)

    def _safely(self, receive: Callable[[], Any]) -> Any:
        try:
            return receive()
        except RemoteProtocolError:  # its memory was overwritten: as good as dead
            return None

    def _add_worker(self, slot: Slot, message: internal.WorkerReady) -> None:
        sock = socket.socket(fileno=slot.channel.descriptors.popleft())
        channel = Channel(sock, _FROM_WORKER)
        worker = Worker(message.worker, message.pid, slot, channel, slot.page.slot(message.worker))
        slot.workers[worker.number] = worker
        slot.pid = message.supervisor
        slot.spare = worker
        if not slot.started:
            slot.started = True
            slot.template.forking -= 1
        self.resume(worker)
        if slot.attempt is None:
            idle = self._idle.setdefault(slot.template.key, [])
            if slot not in idle:
                idle.append(slot)
        self._owner.on_spare(slot)

    def _bury(self, worker: Worker, message: Message) -> None:
        """A worker is gone: what it sent before comes first, as fast as the farm takes it."""
        worker.gone = message
        self._drain(worker)

    def _drain(self, worker: Worker) -> None:
        """Read what a worker left that is gone, then tell of its end."""
        while not worker.channel.closed:
            size = self._owner.read_size(worker)
            if size <= 0:
                self._loop.pause(worker.channel.sock.fileno())
                return
            found = self._safely(lambda: worker.channel.receive(size))  # noqa: B023
            if not found:
                break
            self._hand_on(worker, found)
        self._close_worker(worker)
        worker.slot.workers.pop(worker.number, None)
        self._owner.on_gone(worker, worker.gone)

    def _close_worker(self, worker: Worker) -> None:
        if not worker.channel.closed:
            self._loop.forget(worker.channel.sock.fileno())
            worker.channel.close()
        if worker.slot.spare is worker:
            worker.slot.spare = None

    # --- workers

    def resume(self, worker: Worker) -> None:
        """Read from a worker (again)."""
        if not worker.channel.closed:
            self._loop.read(worker.channel.sock.fileno(), lambda: self._read_worker(worker))

    def _read_worker(self, worker: Worker) -> None:
        if worker.gone is not None:
            self._drain(worker)
            return
        size = self._owner.read_size(worker)
        if size <= 0:
            self._loop.pause(worker.channel.sock.fileno())
            return
        found = self._safely(lambda: worker.channel.receive(size))
        if found is None:
            # Its supervisor tells what became of it.
            self._loop.pause(worker.channel.sock.fileno())
            return
        self._hand_on(worker, found)

    def _hand_on(self, worker: Worker, found: list[Any]) -> None:
        for each in found:
            if isinstance(each, Fragment):
                self._owner.on_worker_bulk(worker, each.data)
            elif each.kind == internal.Imported.kind:
                message: Any = decode(each)
                self._learn(worker.slot.template, message.names.splitlines())
            elif each.kind == Missing.kind:
                message = decode(each)
                self._owner.on_missing(worker, message)
            else:
                self._owner.on_worker_frame(worker, each)

    def _lose_slot(self, slot: Slot) -> None:
        """A supervisor is gone."""
        if self._slots.pop(slot.number, None) is None:
            return
        slot.template.slots.discard(slot.number)
        if not slot.started:
            slot.template.forking -= 1
        # Its descriptors are closed before its children are given away.
        while slot.pid and tree.alive((slot.pid,)):
            time.sleep(0.0002)
        self._owner.before_slot_lost()
        for worker in list(slot.workers.values()):
            # What they started was swept.
            begun = int(worker.words[page.BEGUN])
            self._bury(worker, internal.WorkerGone(worker.number, begun, -9, 0.0, Usage(), "", b""))
        self._groups.remove_slot(slot.number)
        self._loop.forget(slot.channel.sock.fileno())
        slot.channel.close()
        idle = self._idle.get(slot.template.key, [])
        if slot in idle:
            idle.remove(slot)
        self._owner.on_slot_lost(slot)

    # --- templates

    def template(self, key: Key, recipe: Recipe) -> Template:
        """Return the template of this kind; started if it is not there."""
        found = self._templates.get(key)
        if found is None:
            self._make_room()
            found = self._templates[key] = self._start(key, recipe)
        found.used = self._loop.now
        return found

    def _start(self, key: Key, recipe: Recipe) -> Template:
        self._count += 1
        theirs, ours = socket.socketpair()
        noise, their_noise = os.pipe()
        package: Any = sys.modules[__name__.partition(".")[0]]
        line, program = package.__first_line__, package.__bootstrap__
        argv = [recipe.executable, "-s", "-P", "-c", line, "template"]
        inherited = {**os.environ, **self._variables}
        environment = variables_for(inherited, key.threads, self._hash_seed)
        if not recipe.path:
            put_first(environment, os.path.dirname(recipe.executable))
        pid = spawn(argv, environment, (theirs.fileno(), their_noise, their_noise))
        theirs.close()
        os.close(their_noise)
        channel = Channel(ours, internal.TO_AGENT)
        template = Template(self._count, key, recipe, pid, channel, noise)
        os.set_blocking(noise, False)
        plan = Plan(
            *self._folders,
            path=recipe.path,
            preload=recipe.preload,
            early=recipe.early,
            patient=recipe.patient,
            groups=self._groups.parents,
            threads=self._groups.threads,
        )
        channel.send(program)
        channel.send(encode(internal.Setup(template.number, json.dumps(asdict(plan)))))
        self._loop.touch(channel)
        self._loop.read(ours.fileno(), lambda: self._read_template(template))
        self._loop.read(noise, lambda: self._read_noise(template))
        return template

    def _read_template(self, template: Template) -> None:
        found = self._safely(template.channel.receive)
        if found is None:
            self._lose_template(template)
            return
        for frame in found:
            message = decode(frame) if isinstance(frame, Frame) else None
            if isinstance(message, internal.Ready):
                if message.problem:
                    self._start_bare(template, message.problem)
                    return
                template.ready = True
                notes = "; ".join(filter(None, (template.notes, message.notes)))
                self._owner.on_template(template, "", notes)
                for _ in range(template.forking):
                    self._fork(template)

    def _start_bare(self, template: Template, why: str) -> None:
        """Replace a template that must not fork by one that has imported nothing."""
        fresh = self._start_instead(template, replace(template.recipe, preload=[]))
        fresh.notes = f"workers import for themselves: {why}"
        self._close_template(template)

    def _start_instead(self, template: Template, recipe: Recipe) -> Template:
        fresh = self._templates[template.key] = self._start(template.key, recipe)
        fresh.forking = template.forking
        return fresh

    def drop(self, environment: int) -> None:
        """End the templates of an environment that cannot be had after all."""
        for key in [key for key in self._templates if key.environment == environment]:
            if not self._templates[key].ready:
                self._close_template(self._templates.pop(key))

    def _read_noise(self, template: Template) -> None:
        try:
            data = os.read(template.noise, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(template.noise)
            os.close(template.noise)
            template.noise = -1
        template.heard = (template.heard + data)[-_NOISE:]

    def _close_template(self, template: Template) -> None:
        """Let go of a template: it ends, and its supervisors with it."""
        if template.channel.closed:
            return
        if template.noise >= 0:
            self._read_noise(template)
        if template.noise >= 0:
            self._loop.forget(template.noise)
            os.close(template.noise)
            template.noise = -1
        self._loop.forget(template.channel.sock.fileno())
        template.channel.close()

    def _lose_template(self, template: Template) -> None:
        """A template is gone, by itself or because it never came up."""
        self._close_template(template)
        if self._templates.get(template.key) is template:
            del self._templates[template.key]
            if template.recipe.early and not template.recipe.patient and not template.ready:
                # An import failed, perhaps for want of what was still to come.
                self._start_instead(template, replace(template.recipe, patient=True))
                return
        if not template.ready:
            heard = template.heard.decode("utf-8", "replace").strip()
            self._owner.on_template(template, heard or "its interpreter does not start", "")

    def _make_room(self) -> None:
        """End the templates that nobody has used for longest, above `_TEMPLATES` of them."""
        idle = [
            template
            for template in self._templates.values()
            if template.ready and not template.forking and not self._is_busy(template)
        ]
        idle.sort(key=lambda template: template.used)
        for template in idle[: max(0, len(self._templates) - _TEMPLATES + 1)]:
            del self._templates[template.key]
            self._close_template(template)

    def _is_busy(self, template: Template) -> bool:
        return any(self._slots[number].attempt is not None for number in template.slots)
