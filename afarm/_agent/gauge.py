"""The gauge: the process of a node that asks NVML for the GPU memory of calls.

A process of its own, because the library takes up to seconds to load its driver, and does
not answer at all when a GPU has failed: neither the agent nor a supervisor may wait for that.
It ends at once where there is no such library, and with its agent.
"""

from __future__ import annotations

import os
import select
import signal
import time

from .._monitor.gpu_memory import Peaks
from .._monitor.nvml import Nvml, open_nvml
from .._monitor.tree import ProcessTree
from .._wire.frames import Fragment, FrameReader
from .._wire.messages import decode, encode
from .internal import Weigh, Weighed
from .system import die_with_parent

# How often while calls with GPUs run. A question takes about 1 ms for each GPU, whatever the
# number of calls: less than a hundredth of one core for two of them.
_EVERY = 0.25

_READ = 1 << 16


class Gauge:
    """Looks at the calls that it was told of.

    Args:
        library: NVML.
        tree: Finds the processes of a call.
    """

    def __init__(self, library: Nvml, tree: ProcessTree) -> None:
        self._library = library
        self._tree = tree
        self._calls: dict[int, tuple[int, Peaks]] = {}

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look at."""
        return not self._calls

    def take(self, message: Weigh) -> None:
        """Begin with a call, or let go of it."""
        if message.process:
            self._calls[message.invocation] = (message.process, Peaks())
        else:
            self._calls.pop(message.invocation, None)

    def look(self) -> list[Weighed]:
        """Look at all calls; return the peaks of those that have risen."""
        used = self._library.memory_by_process()
        return [
            Weighed(invocation, peaks.pack())
            for invocation, (pid, peaks) in self._calls.items()
            if peaks.look(used, self._tree.below((pid,)) | {pid})
        ]


def serve(gauge: Gauge, source: int, sink: int, leftover: bytes) -> None:
    """Look until the agent goes away.

    Raises:
        OSError: If it has gone in the middle of a message.
    """
    reader = FrameReader(frozenset({Weigh.kind}))
    data = leftover
    due = 0.0
    while True:
        for frame in reader.feed(data):
            message = None if isinstance(frame, Fragment) else decode(frame)
            if isinstance(message, Weigh):
                gauge.take(message)
        left = None if gauge.idle else max(0.0, due - time.monotonic())
        data = b""
        if select.select([source], [], [], left)[0]:
            data = os.read(source, _READ)
            if not data:
                return
        elif time.monotonic() >= due:
            due = time.monotonic() + _EVERY
            for answer in gauge.look():
                os.write(sink, encode(answer))


def main(leftover: bytes) -> None:
    """Serve on descriptors 0 and 1."""
    die_with_parent(signal.SIGKILL, os.getppid())
    sink = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not print into the frames
    library = open_nvml()
    if library is not None:
        serve(Gauge(library, ProcessTree(os.getppid())), 0, sink, leftover)
