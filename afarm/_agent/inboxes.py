"""What lies in the inboxes of workers: calls given, calls sent ahead, calls taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .._wire.flow import CREDIT_STEP
from .._wire.frames import BULK, pack_header
from .._wire.messages import Credit, encode
from . import internal
from .blobs import Blobs
from .calls import Attempt, Calls, Step
from .gpu_memory import GpuMemory
from .loop import Loop
from .outbox import Outbox
from .page import BEGUN, VISIBLE, WITHDRAWN_FROM, WITHDRAWN_TO
from .pool import Slot, Worker

# Calls that lie in a worker's inbox behind the one it runs, where calls take less than
# _SHORT seconds: the worker goes on without waiting for the agent. Of the shortest ones as
# many as take _AHEAD_TIME, since each exchange costs both sides a change of context.
_AHEAD = 8
_MOST_AHEAD = 32
_AHEAD_TIME = 0.001
_SHORT = 0.002

# A worker that has not ended a call for so long gives back what it has not begun.
_STUCK = 0.02

# The supervisor of a worker that is given short calls is told at most so often.
_WATCH_EVERY = 0.5

# Bytes on their way into a worker, after which no more are relayed to it.
_RELAYED = 1 << 20


def ahead_of(wall_time: float) -> int:
    """Return how many calls that take so long lie in an inbox behind the one that runs."""
    return max(_AHEAD, min(_MOST_AHEAD, int(_AHEAD_TIME / max(wall_time, 1e-6))))


class Inboxes:
    """Puts calls into workers' inboxes, and takes back what they have not begun.

    Args:
        loop: The agent's loop.
        outbox: What goes to the farm.
        blobs: Functions and objects.
        calls: All attempts.
        gpu_memory: Who looks at the GPU memory of attempts.
        slots: Returns all slots.
        missing: Whether something an attempt needs is not there.
        put_back: Takes attempts that were taken back.
    """

    def __init__(
        self,
        loop: Loop,
        outbox: Outbox,
        blobs: Blobs,
        calls: Calls,
        gpu_memory: GpuMemory,
        slots: Callable[[], list[Slot]],
        missing: Callable[[Attempt], bool],
        put_back: Callable[[Sequence[Attempt]], None],
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._blobs = blobs
        self._calls = calls
        self._gpu_memory = gpu_memory
        self._slots = slots
        self._missing = missing
        self._put_back = put_back
        self._checking = False

    def give(self, slot: Slot, attempt: Attempt) -> None:
        """Let an attempt begin in a slot's free worker."""
        worker = slot.spare
        assert worker is not None
        slot.attempt = attempt
        if not attempt.reuse:
            slot.spare = None
        self.hand(worker, attempt)
        attempt.step = Step.RUNNING
        self.watch_if_due(worker, attempt)
        self.fill(worker)

    def hand(self, worker: Worker, attempt: Attempt) -> None:
        """Put an attempt into a worker's inbox."""
        run = attempt.run
        attempt.worker = worker
        worker.sent.append(attempt)
        worker.sequence += 1
        attempt.sequence = worker.sequence
        if run.function not in worker.functions:
            worker.functions.add(run.function)
            pickled = self._blobs.functions.get(run.function)
            if pickled is not None:
                self.send(worker, encode(internal.Function(run.function, pickled)))
        if attempt.devices != worker.devices and attempt.devices:
            worker.devices = attempt.devices
            self.send(worker, encode(internal.Devices(worker.number, ",".join(worker.devices))))
        self.send(worker, attempt.frame)
        if attempt.bulk:
            worker.relaying = attempt
            self.relay(attempt)

    def send(self, worker: Worker, data: bytes) -> None:
        worker.channel.send(data)
        self._loop.touch(worker.channel)

    def pass_on(self, attempt: Attempt, data: memoryview) -> None:
        """Pass on arguments that are only lent; without a copy where the worker keeps up."""
        channel = attempt.worker.channel
        if attempt.parked or channel.queued:
            attempt.parked.append(bytes(data))
        else:
            channel.send_now(pack_header(BULK, attempt.run.invocation, len(data)), data)
            self._loop.touch(channel)
            self._grant(attempt, len(data))
        self.relay(attempt)

    def relay(self, attempt: Attempt) -> None:
        """Pass on arguments that have come, as far as the worker reads them."""
        worker = attempt.worker
        channel = worker.channel
        while attempt.parked and channel.queued < _RELAYED:
            data = attempt.parked.popleft()
            self.send(worker, pack_header(BULK, attempt.run.invocation, len(data)))
            channel.send(data)
            self._grant(attempt, len(data))
        if attempt.arrived == attempt.bulk and not attempt.parked:
            worker.relaying = None
            channel.drained = None
        else:
            channel.drained = lambda: self.relay(attempt) if attempt.parked else None

    def _grant(self, attempt: Attempt, amount: int) -> None:
        attempt.relayed += amount
        if attempt.relayed >= CREDIT_STEP and attempt.arrived < attempt.bulk:
            self._outbox.send(encode(Credit(attempt.run.invocation, attempt.relayed)))
            attempt.relayed = 0

    def fill(self, worker: Worker) -> None:
        """Send short calls ahead to a worker that serves many."""
        first = worker.sent[0] if worker.sent else None
        if first is None or not first.reuse or worker.leaving or first.killed:
            return
        if worker.relaying is not None:
            return  # nothing may come between the bytes of its arguments
        withdrawn = worker.words[WITHDRAWN_TO]
        if worker.words[WITHDRAWN_FROM] <= worker.sent[-1].sequence <= withdrawn:
            return  # until it is known what it skips
        group = self._calls.group(first)
        if not group.queue or group.wall_time is None or group.wall_time > _SHORT:
            return
        ahead = ahead_of(group.wall_time)
        while group.queue and len(worker.sent) <= ahead:
            attempt = group.queue[0]
            if attempt.bulk or self._missing(attempt):
                break
            group.queue.popleft()
            attempt.step = Step.SENT
            self.hand(worker, attempt)
        if not self._checking and len(worker.sent) > 1:
            self._checking = True
            self._loop.later(_STUCK, self._check_inboxes)

    def send_ahead(self, attempt: Attempt) -> None:
        """Find a worker that a newly queued call may be sent ahead to."""
        group = self._calls.group(attempt)
        if group.wall_time is None or group.wall_time > _SHORT or not attempt.reuse:
            return
        best: Worker | None = None
        for slot in self._slots():
            holder = slot.attempt
            if holder is None or holder.run.group != attempt.run.group or slot.spare is None:
                continue
            if best is None or len(slot.spare.sent) < len(best.sent):
                best = slot.spare
        if best is not None and best.sent and len(best.sent) <= ahead_of(group.wall_time):
            self.fill(best)

    def watch_if_due(self, worker: Worker, attempt: Attempt) -> None:
        """Tell the supervisor of a call: of each under fork, now and then under reuse."""
        self._gpu_memory.begin(attempt, worker.pid)
        if (
            not attempt.reuse
            or attempt.expected != worker.watched_expected
            or attempt.limits != worker.watched_limits
            or self._loop.now - worker.watched > _WATCH_EVERY
        ):
            self.watch(worker, attempt)

    def watch(self, worker: Worker, attempt: Attempt) -> None:
        worker.watched = self._loop.now
        worker.watched_limits = attempt.limits
        worker.watched_expected = attempt.expected
        message = internal.Watch(
            worker.number, worker.sequence, attempt.expected, attempt.run.isolation, attempt.limits
        )
        worker.slot.channel.send(encode(message))
        self._loop.touch(worker.slot.channel)

    def dispose(self, worker: Worker) -> None:
        self.leave(worker)
        worker.slot.channel.send(encode(internal.Dispose(worker.number)))
        self._loop.touch(worker.slot.channel)

    def _check_inboxes(self) -> None:
        """Take calls back from workers that have been at one for long."""
        self._checking = False
        for slot in self._slots():
            worker = slot.spare
            if worker is None or len(worker.sent) < 2:
                continue
            if not self._checking:
                self._checking = True
                self._loop.later(_STUCK, self._check_inboxes)
            begun = int(worker.words[BEGUN])
            if begun == worker.checked:
                self.withdraw(worker)
            worker.checked = begun

    def withdraw(self, worker: Worker) -> None:
        """Keep a worker from beginning what lies in its inbox; see `page`."""
        if worker.words[WITHDRAWN_TO] > worker.words[BEGUN] or worker.leaving:
            return  # under way
        if len(worker.sent) < 2:
            return
        worker.words[WITHDRAWN_FROM] = worker.sent[1].sequence
        worker.words[WITHDRAWN_TO] = worker.sequence
        self._loop.later(VISIBLE, lambda: self._take_back(worker))

    def _take_back(self, worker: Worker) -> None:
        """Take back what a worker has not begun and never will."""
        if worker.channel.closed or worker.leaving:
            return  # `WorkerGone` sees to them
        begun = int(worker.words[BEGUN])
        back: deque[Attempt] = deque()
        # One that has been given the lane meanwhile stays: the farm was told that it runs.
        # The worker skips it, says so, and is given it again.
        holder = worker.slot.attempt
        while worker.sent and worker.sent[-1].sequence > begun and worker.sent[-1] is not holder:
            back.appendleft(worker.sent.pop())
        self._put_back(back)
        if worker.sent and worker.sent[0].killed:
            # It has begun, or says within microseconds that it has not.
            attempt = worker.sent[0]
            self._loop.later(VISIBLE, lambda: self._dispose_if_begun(worker, attempt))

    def _dispose_if_begun(self, worker: Worker, attempt: Attempt) -> None:
        if worker.sent and worker.sent[0] is attempt and not worker.leaving:
            self.dispose(worker)

    def leave(self, worker: Worker) -> None:
        """A worker takes no further call."""
        worker.leaving = True
        if worker.slot.spare is worker:
            worker.slot.spare = None
