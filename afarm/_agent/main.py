"""The agent: one process per connection to a node, which starts and ends everything there.

It never runs the user's code, never blocks, and ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any, NoReturn

from .._monitor import tree
from .._monitor.bound import Bound
from .._monitor.kernel import why_no_node
from .._monitor.machine import Machine
from .._wire import flow
from .._wire.frames import Fragment, Frame, FrameReader
from .._wire.messages import (
    MAGIC,
    PROTOCOL_VERSION,
    TO_AGENT,
    Ack,
    Blob,
    Credit,
    Environment,
    Farewell,
    Forget,
    Heartbeat,
    Hello,
    Kill,
    Lost,
    Message,
    Module,
    More,
    Notice,
    Ping,
    Pong,
    Recall,
    Resize,
    Run,
    Stop,
    Stored,
    Welcome,
    decode,
    encode,
)
from ..errors import ProtocolError
from . import system
from .blobs import Blobs
from .cache import StoreError, claim, default_root, explain
from .dispatch import Dispatcher
from .folders import SessionFolder
from .gpus import find_gpus, hiding, offered
from .grouping import Groups
from .introduction import introduction
from .keeper import Keeper
from .leases import hold_interpreter
from .loop import Loop
from .outbox import Outbox
from .pool import Pool, Recipe

_READ = 1 << 18

# The agent writes at the end of each turn; where the connection takes no more, it waits
# until it does.
_ENDING = 3.0

# A connection that takes no more is tried again after so long (s). It becomes writable each time
# its reader takes a single packet out of it; by then it has room for many.
_FULL = 0.001


class Agent:
    """What one connection to a farm has on a node.

    Args:
        source: The descriptor that frames come from.
        sink: The descriptor that frames go to; may be the same socket.
        leftover: What was read from the source already.
    """

    def __init__(self, source: int, sink: int, leftover: bytes) -> None:
        self._source = source
        self._sink = sink
        self._leftover = leftover
        self._loop = Loop()
        self._outbox = Outbox(sink)
        self._reader = FrameReader(TO_AGENT)
        self._session: SessionFolder | None = None
        self._groups: Groups | None = None
        self._blobs: Blobs
        self._keeper: Keeper
        self._calls: Dispatcher
        self._pool: Pool
        self._welcome: Welcome | None = None
        self._room = memoryview(bytearray(_READ))
        self._receipt = flow.Receipt()
        self._acknowledging = False
        self._full = False  # the connection took no more the last time
        self._heard = self._loop.now
        self._beats = 0
        self._machine = Machine()
        self._end: tuple[bool, str] | None = None  # forced, why
        self._tree = tree.ProcessTree(os.getpid())

    def run(self) -> None:
        """Serve until the farm goes away or asks for the end."""
        os.set_blocking(self._source, False)
        os.set_blocking(self._sink, False)
        for descriptor in (self._source, self._sink):
            system.widen(descriptor)
        self._outbox.send(MAGIC)
        self._loop.read(self._source, self._read)
        wakeups, wake = os.pipe()
        for descriptor in (wakeups, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._finish(True, "SIGTERM"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._loop.read(wakeups, lambda: self._on_signal(wakeups))
        try:
            self._flush()
            if self._leftover:
                self._take(self._leftover)
            while self._end is None:
                self._flush()
                self._loop.turn()
        finally:
            self._close()

    def _finish(self, forced: bool, reason: str) -> None:
        if self._end is None:
            self._end = (forced, reason)

    # --- reading

    def _read(self) -> None:
        try:
            count = os.readv(self._source, (self._room,))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._finish(True, "the connection has ended")
            return
        self._take(self._room[:count])

    def _take(self, data: bytes | memoryview) -> None:
        self._heard = self._loop.now
        try:
            for each in self._reader.feed(data):
                if isinstance(each, Fragment):
                    self._take_bulk(each.subject, each.data)
                else:
                    self._handle(decode(each), each)
        except ProtocolError as exc:
            self._finish(True, f"the farm's messages cannot be understood: {exc}")
        if not self._acknowledging:
            self._acknowledge_in_time()

    def _acknowledge_in_time(self) -> None:
        self._acknowledging = False
        wait = self._receipt.wait(self._loop.now)
        if wait is None:
            return
        if wait:
            self._acknowledging = True
            self._loop.later(wait, self._acknowledge_in_time)
        else:
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._tell(Ack(self._receipt.acknowledge(self._loop.now)))

    def _tell(self, message: Message) -> None:
        self._outbox.send(encode(message))

    def _take_bulk(self, subject: int, data: memoryview) -> None:
        self._receipt.received += len(data)
        if self._blobs.expects(subject):
            problem = self._blobs.add(subject, data)
            if problem is None:
                self._tell(Credit(subject, len(data)))
            else:
                self._blob_done(subject, problem)
        elif self._keeper.expects(subject):
            self._keeper.take(subject, data)
        elif self._calls.expects(subject):
            self._calls.take_bulk(subject, data)

    def _blob_done(self, blob: int, problem: str) -> None:
        self._acknowledge()
        if problem:
            self._tell(Lost(blob, problem))
        else:
            self._tell(Stored(blob))
            self._calls.blob_arrived()

    def _handle(self, message: Message, frame: Frame) -> None:
        if self._welcome is None:
            if not isinstance(message, Welcome):
                raise ProtocolError(f"{type(message).__name__} instead of Welcome")
            self._open(message)
        elif isinstance(message, Run):
            self._calls.run(message, frame)
        elif isinstance(message, Kill):
            self._calls.kill(message)
        elif isinstance(message, Ack):
            self._outbox.pacer.on_acknowledged(message.received, self._loop.now)
            self._calls.resume_stalled()
        elif isinstance(message, Credit):
            self._outbox.add_credit(message.subject, message.amount)
            self._calls.resume_stalled()
        elif isinstance(message, Ping):
            self._tell(Pong(message.token))
        else:
            self._handle_rare(message)

    def _handle_rare(self, message: Message) -> None:
        if isinstance(message, Recall):
            self._calls.recall(message)
        elif isinstance(message, More):
            self._calls.more(message)
        elif isinstance(message, Resize):
            self._calls.resize(message)
        elif isinstance(message, Blob) and message.role == "bundle":
            self._keeper.begin(message)
        elif isinstance(message, Blob):
            problem = self._blobs.begin(message)
            if problem is not None:
                self._blob_done(message.blob, problem)
        elif isinstance(message, Forget):
            if self._keeper.expects(message.blob):
                self._keeper.forget(message)
            else:
                self._blobs.forget(message.blob)
        elif isinstance(message, Environment):
            self._prepare(message)
        elif isinstance(message, Module):
            self._calls.questions.answer(message)
        elif isinstance(message, Stop):
            self._finish(False, "the farm asked for it")

    def _prepare(self, message: Environment) -> None:
        try:
            description: dict[str, Any] = json.loads(message.description)
            if not description.get("in_place"):
                self._keeper.prepare(message)
                return
            recipe = Recipe(
                description["executable"], description["path"], description.get("preload", [])
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise ProtocolError(f"a malformed environment: {exc!r}") from exc
        self._calls.environment_ready(message.environment, recipe)

    def _decided(self, environment: int, executable: str, preload: list[str], why: str) -> None:
        """The storekeeper has built an environment, or cannot."""
        if self._calls.questions.expects(environment):
            self._calls.questions.decided(environment, executable, why)
        elif why:
            self._calls.environment_failed(environment, why)
        else:
            self._calls.environment_ready(environment, Recipe(executable, [], preload))

    def _arriving(self, environment: int, executable: str, preload: list[str], folder: str) -> None:
        """Of an environment all but modules is there: its template can start to import."""
        if not self._calls.questions.expects(environment):
            recipe = Recipe(executable, [], preload, folder)
            self._calls.environment_ready(environment, recipe)

    # --- the beginning

    def _open(self, welcome: Welcome) -> None:
        """Set up what the farm's `Welcome` asks for, and answer."""
        self._welcome = welcome
        cache = default_root(welcome.scratch)
        try:
            claim(cache)
            hold_interpreter(cache)
            self._session = SessionFolder(cache, welcome.farm, welcome.node)
        except (StoreError, OSError) as exc:
            self._finish(True, explain(exc, cache) if isinstance(exc, OSError) else str(exc))
            return
        ended = self._session.end_older(lambda: None)
        if ended:
            self._tell(Notice(20, f"ended an older agent of this farm here: {ended}"))
        self._blobs = Blobs(self._session.blobs)
        early = os.path.join(self._session.path, "early")
        self._keeper = Keeper(self._loop, cache, early, self._tell, self._decided, self._arriving)
        found = find_gpus(os.environ)
        gpus = offered(found, welcome.capacity.gpus)
        self._calls = Dispatcher(self._loop, self._outbox, self._blobs, gpus)
        calls = Groups(self._machine.cgroups, os.path.basename(self._session.path))
        self._groups = calls
        folders = (self._session.calls, self._session.blobs)
        hidden = hiding(os.environ, found, gpus)
        self._pool = self._calls.pool = Pool(
            self._loop, self._calls, welcome.hash_seed, folders, calls, hidden
        )
        self._calls.sweep = self._sweep
        capacity, sources = self._machine.capacity(
            self._session.path, welcome.capacity, Bound(len(gpus), found.source)
        )
        self._calls.node_memory = capacity.memory
        if sources.get("memory") != "the machine" and capacity.memory is not None:
            calls.bound_memory(capacity.memory)
        description = introduction(cache, calls.controllers, sources)
        self._tell(Hello(PROTOCOL_VERSION, capacity, json.dumps(description)))
        self._machine.cores_in_use()
        self._loop.later(welcome.heartbeat, self._beat)

    def _beat(self) -> None:
        """Give a sign of life; end when the farm has given none for too long."""
        assert self._welcome is not None
        welcome = self._welcome
        if self._loop.now - self._heard > welcome.silence:
            # What has arrived meanwhile (this process may have been stopped) counts first.
            self._read()
            if self._loop.now - self._heard > welcome.silence:
                self._finish(True, f"the farm was silent for {welcome.silence:g} s")
        self._beats += 1
        if self._groups is not None:
            self._groups.follow(len(self._pool.slots))
        self._tell(
            Heartbeat(
                self._beats, self._machine.cores_in_use(), self._machine.available(),
                self._machine.memory_pressure(),
            )
        )  # fmt: skip
        self._loop.later(welcome.heartbeat, self._beat)

    # --- processes

    def _on_signal(self, wakeups: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wakeups, 4096)
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _sweep(self) -> None:
        """End every process that fell to this one because its supervisor has died."""

        def strangers() -> set[int]:
            ours = {self._keeper.pid, self._calls.gpu_memory.pid}
            orphans = self._tree.children() - self._pool.pids - ours
            return orphans | self._tree.below(orphans)

        tree.end(strangers, self._reap)

    # --- writing

    def _flush(self) -> None:
        self._loop.flush()
        if not self._full:
            self._write()

    def _write(self) -> None:
        before = self._outbox.written
        try:
            done = self._outbox.flush(self._loop.now)
        except OSError:
            self._finish(True, "the connection has ended")
            return
        self._full = not done
        self._loop.write(self._sink, None)
        if not done and self._outbox.written > before:
            self._loop.later(_FULL, self._write)
        elif not done:
            self._loop.write(self._sink, self._write)
        self._calls_resume()

    def _calls_resume(self) -> None:
        if self._welcome is not None and self._session is not None:
            self._calls.resume_stalled()

    # --- the end

    def _close(self) -> None:
        """End everything that was started here, say farewell, remove the folder."""
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGTERM else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        tree.end(lambda: self._tree.below((os.getpid(),)), self._reap)
        if self._session is not None:
            if self._groups is not None:
                self._groups.remove()
            self._session.remove()
        forced, reason = self._end or (True, "a fault of the agent")
        self._tell(Farewell(int(forced), reason))
        with contextlib.suppress(OSError):
            self._outbox.flush(self._loop.now)


def main(leftover: bytes = b"") -> NoReturn:
    """Be an agent: frames come from descriptor 0 and go to descriptor 1."""
    if why_not := why_no_node(sys.platform):
        os.write(1, MAGIC + encode(Farewell(1, why_not)))
        sys.exit(0)
    with contextlib.suppress(OSError):
        os.setsid()
    system.become_subreaper()
    source, sink = system.move_high(os.dup(0)), system.move_high(os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    Agent(source, sink, leftover).run()
    sys.exit(0)
