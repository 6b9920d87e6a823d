"""A supervisor: one per slot. Forks workers, watches them, and ends what they leave behind.

It is forked from a template, single-threaded, and the nearest subreaper of everything
its workers start: whoever loses its parent becomes its child.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time

from .._monitor import tree
from .._monitor.limits import exceeded, most
from .._monitor.trace import WALL, Tracer
from .._monitor.tree_watch import SUPERVISOR
from .._wire.frames import Fragment, FrameReader
from .._wire.messages import Isolation, Message, decode, encode
from ..resources import Resources, Usage
from . import internal, system
from .forked import Forked, Place
from .hook import hook
from .output import COALESCE, Pipes
from .page import BEGUN, SETTLED, Page
from .prepared import prepared
from .scratch import disk_usage, open_up, remove, removed_empty
from .slot_group import Call, SlotGroup
from .spawning import Spawning
from .watch import CallWatch
from .worker import run_worker

_READ = 1 << 16

# Who is to die first when memory is short: of the workers and what they have started the
# largest. A supervisor has no more than they do, and all that its slot was doing goes with it.
_SCORE, _OWN_SCORE = 1000, 500

# What `ps` and `top` show; another monitor, above us, tells by the first who measures itself.
_WORKER = b"afarm call"


class Supervisor:
    """The loop of a supervisor.

    Args:
        number: Which of the agent's supervisors.
        sock: The socket to the agent.
        page: The page shared with the agent and the workers.
        place: Where things are.
    """

    def __init__(self, number: int, sock: socket.socket, page: Page, place: Place) -> None:
        self._number = number
        self._sock = sock
        self._page = page
        self._place = place
        self._reader = FrameReader(internal.FROM_AGENT)
        self._workers: dict[int, Forked] = {}
        self._forked = 0
        self._tree = tree.ProcessTree(os.getpid())
        self._poll = select.poll()
        self._score = system.OutOfMemoryScore()
        self._group = SlotGroup(place.groups, number, place.threads)
        self._tracer: Tracer | None = None
        self._wakeups, self._wake = (system.move_high(fd) for fd in os.pipe())
        for descriptor in (self._wakeups, self._wake):
            os.set_blocking(descriptor, False)
        self._ending = False

    def run(self) -> None:
        """Serve until the agent goes away or asks for the end; then end everything below."""
        system.become_subreaper()
        system.set_name(SUPERVISOR)
        self._score.set(_OWN_SCORE)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        self._poll.register(self._sock, select.POLLIN)
        self._poll.register(self._wakeups, select.POLLIN)
        try:
            self._fork_worker()
            while not self._ending:
                self._turn()
        finally:
            self._end_everything()

    def _on_term(self, *_: object) -> None:
        self._ending = True

    def _turn(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        ready = self._poll.poll(self._timeout())
        now = time.monotonic()
        for descriptor, _ in ready:
            if descriptor == self._sock.fileno():
                self._read_agent()
            elif descriptor == self._wakeups:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeups, 4096)
                self._reap()
                self._trace_who_waits()
            else:
                self._read_output(descriptor, now)
        for worker in list(self._workers.values()):
            if worker.printed_at and now >= worker.printed_at + COALESCE:
                worker.printed_at = 0.0
                worker.pipes.flush()
            if worker.watch is not None and now >= worker.watch.due:
                self._look(worker, now)

    def _timeout(self) -> float | None:
        due = [w.printed_at + COALESCE for w in self._workers.values() if w.printed_at]
        due += [
            w.watch.due for w in self._workers.values()
            if w.watch is not None and w.watch.due < float("inf")
        ]  # fmt: skip
        if not due:
            return None
        # Rounded up: a wait that ends early would be repeated until it is time.
        return max(0.0, (min(due) - time.monotonic()) * 1000 + 1)

    # --- messages

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        try:
            if descriptors is None:
                self._sock.sendall(encode(message))
            else:
                system.send_with_descriptors(self._sock, encode(message), descriptors)
        except OSError:  # the agent is gone
            self._ending = True

    def _read_agent(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except OSError:
            data = b""
        if not data:
            self._ending = True
            return
        for frame in self._reader.feed(data):
            if isinstance(frame, Fragment):
                continue
            message = decode(frame)
            if isinstance(message, internal.Watch):
                self._watch(message)
            elif isinstance(message, internal.Settle):
                self._settle(message)
            elif isinstance(message, internal.Dispose):
                self._dispose(message.worker)
            elif isinstance(message, internal.Prepare):
                prepared.read(message.names.splitlines())
            elif isinstance(message, internal.Found):
                hook.take(message)

    def _watch(self, message: internal.Watch) -> None:
        worker = self._workers.get(message.worker)
        if worker is None:
            return
        worker.isolation = message.isolation
        if worker.watch is None:
            grouped = self._group.entered
            worker.watch = CallWatch(worker.pid, worker.slot, worker.folder, self._tree, grouped)
        worker.watch.begin(message.limits, message.expected, time.monotonic())
        calls = self._calls()
        first = len(calls) == 1 and not worker.watch.sequence
        self._group.begin(calls, first=first, reuse=message.isolation is Isolation.REUSE)
        # The next call's worker is made while this call runs.
        if message.isolation is Isolation.FORK:
            self._have_spare()

    def _calls(self) -> list[Call]:
        """Return what the slot's group is to know of the calls that run."""
        return [w.watch.for_group for w in self._workers.values() if w.watch is not None]

    def _spare(self) -> Forked | None:
        return next((w for w in self._workers.values() if w.watch is None and w.exit is None), None)

    def _settle(self, message: internal.Settle) -> None:
        worker = self._workers.get(message.worker)
        if worker is None:
            return  # `WorkerGone` has answered
        usage = Usage()
        watch = worker.watch
        if watch is not None:
            watch.look_last()
        if message.tree:
            # The worker itself waits, or only hands over its result: what else there is
            # was this call's.
            if not worker.clean:
                self._end_tree(worker, set())
            if self._tracer is not None:
                self._tracer.release()
                self._tracer = None
            worker.slot[SETTLED] = message.sequence
        if message.leaving:
            self._have_spare()
        if watch is not None:
            usage = watch.take_peaks()
            self._tell_curve(worker, watch)
        killed = message.tree and self._group.has_killed()
        worker.pipes.read_all()
        tail = worker.pipes.finish(message.sequence)
        if not worker.pipes.waiting:
            worker.printed_at = 0.0
        self._send(
            internal.Settled(
                worker.number, message.sequence, worker.orphans, usage,
                "memory" if killed else "", tail,
            )
        )  # fmt: skip
        worker.orphans = 0.0

    def _dispose(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is not None and worker.exit is None:
            self._kill(worker)

    # --- workers

    def _have_spare(self) -> None:
        """Fork a worker if none waits for a call.

        Raises:
            OSError: If that cannot be done, and there is no other worker. Else it may be
                for what a call has started, and is done when that is gone.
        """
        if self._spare() is None:
            try:
                self._fork_worker()
            except OSError:
                if not self._workers:
                    raise

    def _fork_worker(self) -> None:
        self._forked += 1
        number = self._forked
        self._page.clear(number)
        theirs, ours = socket.socketpair()
        pipes = [os.pipe(), os.pipe()]
        slot = self._page.slot(number)
        name = f"{self._number}.{number}"
        parent = os.getpid()
        try:
            pid = self._fork()
        except OSError:
            theirs.close()
            ours.close()
            for descriptor in (*pipes[0], *pipes[1]):
                os.close(descriptor)
            raise
        if pid == 0:
            theirs.close()
            self._become_worker(parent, ours, pipes, slot, name)
        ours.close()
        for _, writer in pipes:
            os.close(writer)

        def emit(sequence: int, stream: int, dropped: int, data: bytes) -> None:
            self._send(internal.Printed(number, sequence, stream, dropped, data))

        readers = (pipes[0][0], pipes[1][0])
        worker = Forked(
            number,
            pid,
            Pipes(readers, lambda: int(slot[BEGUN]), emit),
            slot,
            os.path.join(self._place.calls, name),
        )
        self._workers[number] = worker
        for reader in readers:
            self._poll.register(reader, select.POLLIN)
        self._send(internal.WorkerReady(number, pid, parent), [theirs.fileno()])
        theirs.close()

    def _fork(self) -> int:
        """Fork as `os.fork` does; the child is the one to die for memory."""
        parent = os.getpid()
        self._score.set(_SCORE)  # it is inherited
        try:
            return os.fork()
        finally:
            if os.getpid() == parent:
                self._score.set(_OWN_SCORE)

    def _become_worker(
        self, parent: int, sock: socket.socket, pipes: list[tuple[int, int]], slot: memoryview,
        name: str,
    ) -> None:  # fmt: skip
        """Go on as the child of the fork; never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            system.die_with_parent(signal.SIGKILL, parent)
            system.become_subreaper()
            system.set_name(_WORKER)
            # `kill(0, ...)` and `killpg` of the user's code reach its own processes alone.
            os.setpgid(0, 0)
            for descriptor, (_, writer) in enumerate(pipes, 1):
                os.dup2(writer, descriptor)
            sock = system.move_socket_high(sock)
            system.close_all_but(sock.fileno(), self._wake)
        except BaseException:  # nothing of this child may run the supervisor's code
            os._exit(70)
        spawning = Spawning(slot, self._wake)
        run_worker(sock, slot, self._place.calls, self._place.blobs, name, spawning)

    def _reap(self) -> None:
        """Wait for every child that has ended; see to the workers among them."""
        by_pid = {w.pid: w for w in self._workers.values()}
        gone: list[Forked] = []
        while True:
            try:
                every = os.WNOHANG | (WALL if self._tracer is not None else 0)
                pid, status, used = os.wait4(-1, every)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                if self._tracer is not None:
                    self._tracer.stopped(pid, status)
                continue
            worker = by_pid.get(pid)
            if worker is not None and worker.exit is None:
                worker.exit = os.waitstatus_to_exitcode(status)
                worker.usage = Usage(
                    cpu_user=used.ru_utime,
                    cpu_system=used.ru_stime,
                    memory_resident=used.ru_maxrss << 10,
                )
                gone.append(worker)
            elif worker is None and (self._tracer is None or self._tracer.is_own(pid)):
                self._count_orphan(used)
        for worker in gone:
            self._bury(worker)

    def _bury(self, worker: Forked) -> None:
        """Tell the agent that a worker and everything it started is gone; make it so first."""
        if worker.exit != 0 or not worker.clean:
            self._end_tree(worker, {worker.pid})
        if self._tracer is not None and worker.watch is not None:
            self._tracer = None  # everything that it traced is gone
        usage = worker.usage
        watch = worker.watch
        if watch is not None:
            usage = most(usage, watch.take_peaks())
            self._tell_curve(worker, watch)
            watch.close()
            if not worker.resource and self._group.has_killed(worker.exit):
                worker.resource = "memory"
        worker.pipes.read_all()
        tail = worker.pipes.finish(int(worker.slot[BEGUN]))
        if os.path.exists(worker.folder) and not removed_empty(worker.folder):
            open_up(worker.folder)
            left = disk_usage(worker.folder)
            if watch is not None and left:
                usage = most(usage, Usage(disk=left, wall_time=usage.wall_time))
            remove(worker.folder)
        for reader in worker.pipes.readers:
            with contextlib.suppress(KeyError):  # it had ended before
                self._poll.unregister(reader)
        worker.pipes.close()
        del self._workers[worker.number]
        self._send(
            internal.WorkerGone(
                worker.number, int(worker.slot[BEGUN]), worker.exit or 0, worker.orphans, usage,
                worker.resource, tail,
            )
        )  # fmt: skip
        if not self._ending:
            self._have_spare()

    def _tell_curve(self, worker: Forked, watch: CallWatch) -> None:
        curve = watch.curve.pack() if worker.resource else watch.take_curve()
        if curve:
            self._send(internal.Curve(worker.number, watch.sequence, curve))

    def _end_tree(self, worker: Forked, too: set[int]) -> None:
        """End what a worker's call has started, orphans included; and the worker itself ``too``."""
        others = {w.pid for w in self._workers.values() if w is not worker}
        busy = any(w.watch is not None for w in self._workers.values() if w is not worker)

        def members() -> set[int]:
            if busy:
                # Another call runs already: orphans may be its own. This worker's were
                # ended when it began to hand over its result.
                return self._tree.below((worker.pid,)) | too
            mine = self._tree.below((os.getpid(),)) - others - {worker.pid}
            return (mine - self._tree.below(others) if others else mine) | too

        tree.end(members, self._reap_strangers)

    def _reap_strangers(self) -> None:
        """Wait for ended children that are no workers."""
        if self._tracer is not None:
            self._tracer.drain()
        workers = {w.pid for w in self._workers.values() if w.exit is None}
        for pid in self._tree.children() - workers:
            with contextlib.suppress(ChildProcessError):
                waited_for, status, used = os.wait4(pid, os.WNOHANG)
                if not waited_for:
                    continue
                if os.WIFSTOPPED(status):  # traced: nobody would let it go on that is not told
                    if self._tracer is not None:
                        self._tracer.stopped(pid, status)
                else:
                    self._count_orphan(used)

    def _count_orphan(self, used: resource.struct_rusage) -> None:
        """Count what an orphan used towards the call that runs, or ran last, in this slot."""
        watched = [w for w in self._workers.values() if w.watch is not None]
        if watched:
            # A worker that only hands over its result had its orphans counted when it began to.
            last = max(watched, key=lambda worker: worker.number)
            last.orphans += used.ru_utime + used.ru_stime

    def _kill(self, worker: Forked) -> None:
        """Kill a worker and its tree. It is buried when it has been waited for."""
        self._end_tree(worker, {worker.pid})

    # --- watching and output

    def _look(self, worker: Forked, now: float) -> None:
        watch = worker.watch
        assert watch is not None
        usage = watch.look(now)
        self._group.look(self._calls())
        if usage is None or worker.exit is not None or worker.resource:
            return
        breach = exceeded(watch.limits, usage, certain_memory=watch.certain_memory)
        if breach is not None or self._group.has_killed():
            worker.resource = breach.resource if breach is not None else "memory"
            self._kill(worker)
        elif watch.to_be_traced:
            self._trace(worker, watch)
        elif watch.worth_telling(now):
            self._send(internal.Measured(worker.number, watch.sequence, usage))

    def _trace_who_waits(self) -> None:
        """Trace the calls that are about to start a process and have been told to wait."""
        for worker in self._workers.values():
            watch = worker.watch
            if watch is not None and watch.to_be_traced and worker.exit is None:
                watch.look(time.monotonic())
                self._trace(worker, watch)

    def _trace(self, worker: Forked, watch: CallWatch) -> None:
        """Trace a call's processes from now on, where that can be done."""
        seized = False
        if self._tracer is None:
            tracer = Tracer(watch.seen)
            seized = tracer.seize(worker.pid)
            for pid in self._tree.below((worker.pid,)) if seized else ():
                tracer.seize(pid)
            self._tracer = tracer if seized else None
        watch.note_traced(seized)

    def _read_output(self, descriptor: int, now: float) -> None:
        for worker in self._workers.values():
            if descriptor in worker.pipes.readers:
                worker.pipes.read()
                if descriptor in worker.pipes.ended:
                    # The worker ends, and until it has, this would be ready all the time.
                    self._poll.unregister(descriptor)
                if worker.pipes.waiting and not worker.printed_at:
                    worker.printed_at = now
                return

    def _end_everything(self) -> None:
        """Kill whatever is below this process, wait for it, and remove the folders."""
        tree.end(lambda: self._tree.below((os.getpid(),)), self._reap_all)
        for worker in self._workers.values():
            remove(worker.folder)

    def _reap_all(self) -> None:
        if self._tracer is not None:
            self._tracer.drain()
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if os.WIFSTOPPED(status) and self._tracer is not None:
                    self._tracer.stopped(pid, status)


__all__ = ["Place", "Resources", "Supervisor"]
