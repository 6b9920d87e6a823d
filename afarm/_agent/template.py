"""A template: the warm process of one environment, from which supervisors are forked.

A fresh interpreter that has imported what the functions of its environment import. It
stays single-threaded, runs no user code but those imports, and forks on request.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.machinery
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field

from .._monitor.groups import Parent
from .._monitor.proc import read_status
from .._wire.codec import write_ahead
from .._wire.frames import Fragment, FrameReader
from .._wire.messages import Ended, Message, Run, decode, encode
from . import internal, system
from .arrival import Arrival
from .hook import hook
from .ordinary import become_ordinary
from .page import Page
from .supervisor import Place, Supervisor

# Modules known not to survive a fork of the process that imported them: they start
# threads, or hold handles of a device.
_NOT_FORK_SAFE = ("polars", "grpc", "cupy", "pycuda", "jax", "tensorflow", "ray")

# CUDA's driver, loaded when a process first uses CUDA. It works in no process that is forked
# afterwards, and the devices it has seen by then are all it will ever see there.
_CUDA = b"libcuda.so"

# Their threads wait for work, hold no lock meanwhile, and are made anew in the child.
_SAFE_THREADS = frozenset({"numpy", "scipy", "openblas"})


# What supervisors and workers say and hear for each call.
_SPOKEN = (
    Run, Ended, internal.Function, internal.Watch, internal.Settle, internal.Settled,
    internal.WorkerReady, internal.WorkerGone,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What a template is told about itself; as JSON in `internal.Setup`.

    Attributes:
        path: The entries of ``sys.path``, where the environment is in place; empty where it
            was shipped.
        preload: Modules to import.
        calls: The folder for scratch directories.
        blobs: The folder for large functions and put objects.
        early: The folder of the environment, if modules of it may still be to come.
        patient: Whether to import nothing before all is there.
        groups: The control groups of all calls; in JSON each is a list.
        threads: How many processes and threads those may have; 0: any number.
    """

    calls: str
    blobs: str
    path: list[str] = field(default_factory=list)
    preload: list[str] = field(default_factory=list)
    early: str = ""
    patient: bool = False
    groups: list[Parent] = field(default_factory=list)
    threads: int = 0

    @property
    def place(self) -> Place:
        """Where workers find things."""
        parents = tuple(Parent(*each) for each in self.groups)
        return Place(self.calls, self.blobs, parents, self.threads)


class Template:
    """The loop of a template.

    Args:
        sock: The socket to the agent.
        leftover: What was read from it already.
    """

    def __init__(self, sock: socket.socket, leftover: bytes) -> None:
        self._sock = sock
        self._leftover = leftover
        self._reader = FrameReader(internal.FROM_AGENT)
        self._plan: Plan | None = None
        self._descriptors: list[int] = []

    def run(self) -> None:
        """Serve until the agent goes away."""
        signal.signal(signal.SIGCHLD, self._reap)
        while True:
            for message in self._receive():
                if isinstance(message, internal.Setup):
                    self._set_up(message)
                elif isinstance(message, internal.Fork):
                    self._fork(message.supervisor)

    def _receive(self) -> list[Message]:
        """Return the next messages; ends this process when there are no more."""
        data, self._leftover = self._leftover, b""
        if not data:
            try:
                data, descriptors = system.receive_with_descriptors(self._sock, 1 << 16)
            except OSError:
                data, descriptors = b"", []
            self._descriptors += descriptors
            if not data:
                os._exit(0)
        return [decode(each) for each in self._reader.feed(data) if not isinstance(each, Fragment)]

    def _reap(self, *_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _set_up(self, message: internal.Setup) -> None:
        """Import what is to be imported, and tell the agent."""
        plan = self._plan = Plan(**json.loads(message.description))
        if plan.path:
            sys.path[:] = plan.path
        else:
            hook.wanted = True
        arrival = self._await(plan)
        notes = [note for name in plan.preload if (note := _preload(name))]
        if arrival is not None:
            arrival.end()
            if notes and not plan.patient:
                os._exit(1)  # the agent starts another one, which has all from the start
        # A name that is nowhere: what lies in the folders of the path is known from then on,
        # and no worker has to list them for itself.
        importlib.machinery.PathFinder.find_spec("afarm_nowhere")
        write_ahead(_SPOKEN)
        unsafe = _why_not_to_fork()
        gc.collect()
        gc.freeze()
        answer = internal.Ready(message.number, unsafe, "; ".join(notes))
        self._sock.sendall(encode(answer))

    def _await(self, plan: Plan) -> Arrival | None:
        """Let imports wait for what is still to come; return what does."""
        if not plan.early:
            return None
        arrival = Arrival(plan.early, self._sock.fileno())
        if plan.patient:
            arrival.wait_complete()
        else:
            arrival.watch()
        return arrival

    def _fork(self, number: int) -> None:
        assert self._plan is not None
        descriptors, self._descriptors = self._descriptors[:2], self._descriptors[2:]
        parent = os.getpid()
        pid = os.fork()
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        code = 1
        try:
            system.die_with_parent(signal.SIGTERM, parent)
            os.setpgid(0, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sock.close()
            sock = system.move_socket_high(socket.socket(fileno=descriptors[0]))
            page = Page(descriptors[1])
            Supervisor(number, sock, page, self._plan.place).run()
            code = 0
        except BaseException:  # nothing of this child may run the template's code
            with contextlib.suppress(Exception):
                sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)


def _has_loaded(library: bytes) -> bool:
    """Whether a shared library is loaded in this process, by the beginning of its file's name."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return b"/" + library in file.read()
    except OSError:
        return False


def _preload(name: str) -> str:
    """Import a module; return what went wrong: workers will meet it, and say it, again."""
    try:
        importlib.import_module(name)
    except BaseException as exc:  # modules raise what they like, SystemExit included
        return f"importing {name} failed: {type(exc).__name__}: {exc}"
    return ""


def _why_not_to_fork() -> str:
    """Return why children forked from this process may hang, or an empty string."""
    for name in _NOT_FORK_SAFE:
        if name in sys.modules:
            return f"{name} is not fork-safe"
    if _has_loaded(_CUDA):
        return "something that is imported uses CUDA at once"
    status = read_status(os.getpid())
    if status is not None and status.threads > 1:
        python = sys.modules.get("threading")
        if python is not None and python.active_count() > 1:
            return f"{python.active_count() - 1} threads run after its imports"
        if not _SAFE_THREADS & set(sys.modules):
            return f"{status.threads - 1} threads run after its imports"
    return ""


def main(leftover: bytes = b"") -> None:
    """Become a template: descriptor 0 is the socket to the agent."""
    system.die_with_parent(signal.SIGTERM, os.getppid())
    os.setpgid(0, 0)
    sock = system.move_socket_high(socket.socket(fileno=0))
    become_ordinary()
    Template(sock, leftover).run()
