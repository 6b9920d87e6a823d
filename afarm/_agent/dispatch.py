"""The way of an attempt through the agent: staged, given to a worker, settled, answered.

An attempt is answered with `Ended` when its process tree is gone, or, in a worker that
serves on, when its call is over; with `Returned` if it never began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .._monitor.limits import LONG, exceeded, together
from .._wire.frames import Frame, pack_header
from .._wire.messages import (
    Details,
    Ended,
    EnvironmentState,
    Item,
    Kill,
    Lost,
    Message,
    Missing,
    More,
    Outcome,
    Output,
    Reading,
    Recall,
    Resize,
    Returned,
    Run,
    decode,
    encode,
)
from ..errors import RemoteProtocolError
from ..resources import Resources, Usage
from . import internal
from .answers import HEAD, bulk_in, of_sequence, usage_of, with_next, without_payload
from .blobs import Blobs
from .calls import Attempt, Calls, Step
from .gpu_memory import GpuMemory
from .gpus import Gpus
from .inboxes import Inboxes
from .internal import Flag
from .loop import Loop
from .outbox import Outbox
from .pool import Pool, Recipe, Slot, Template, Worker
from .questions import Questions
from .results import dump_failure
from .staging import Staging

_ENDED: int = Ended.kind
_ITEM: int = Item.kind
_RETURNED: int = Returned.kind

# Allocations of which it is kept what they limit.
_MOST_SOFTENED = 256

# What is read at once from a worker that answers short calls.
_READ = 1 << 16


class Dispatcher:
    """Sees every attempt from `Run` to `Ended`.

    Args:
        loop: The agent's loop.
        outbox: What goes to the farm.
        blobs: Functions and objects.
        gpus: The node's GPUs, as CUDA names them.
    """

    pool: Pool
    node_memory: int | None = None  # what the node has
    sweep: Callable[[], None]

    def __init__(self, loop: Loop, outbox: Outbox, blobs: Blobs, gpus: Sequence[str] = ()) -> None:
        self._loop = loop
        self._outbox = outbox
        self._blobs = blobs
        self._calls = Calls()
        self._stalled: dict[Worker, None] = {}
        self._softened: dict[int, tuple[Resources, Resources]] = {}  # by identity
        self.gpu_memory = GpuMemory(loop, self._tell)
        self._inboxes = Inboxes(
            loop, outbox, blobs, self._calls, self.gpu_memory, lambda: self.pool.slots,
            lambda attempt: self._staging.is_missing_something(attempt), self._put_back,
        )  # fmt: skip
        self._gpus = Gpus(gpus, lambda attempt: self._staging.add(attempt), self._inboxes.dispose)
        self._staging = Staging(
            blobs, lambda: self.pool, self._gpus.claim, self._inboxes.give, self._fail_unusable
        )
        self.questions = Questions(loop, outbox, lambda: self.pool)

    @property
    def running(self) -> int:
        """How many attempts there are."""
        return len(self._calls)

    def _tell(self, message: Message) -> None:
        self._outbox.send(encode(message))

    # --- from the farm

    def environment_ready(self, environment: int, recipe: Recipe) -> None:
        """An environment can be used."""
        self._staging.environment_ready(environment, recipe)
        self._staging.look_again()

    def environment_failed(self, environment: int, problem: str) -> None:
        """An environment cannot be had: what waits for it fails."""
        self._tell(EnvironmentState(environment, problem, ""))
        self._staging.environment_failed(environment, problem)
        self._staging.look_again()

    def blob_arrived(self) -> None:
        """A blob is in place: attempts may have waited for it."""
        self._staging.look_again()

    def run(self, run: Run, frame: Frame) -> None:
        """Take a new attempt."""
        header = pack_header(frame.kind, frame.subject, len(frame.body))
        attempt = self._calls.add(run, header + frame.body)
        if run.soft and attempt is not None:
            self._soften(attempt, run.limits)
        if attempt is None:
            self._tell(Returned(run.invocation, run.attempt))
        elif attempt.step is Step.STAGING:
            self._staging.add(attempt)
        else:
            self._inboxes.send_ahead(attempt)

    def expects(self, subject: int) -> bool:
        """Whether bulk with this subject is the arguments of an attempt."""
        return self._calls.get(subject) is not None

    def take_bulk(self, subject: int, data: memoryview) -> None:
        """Take bytes of an attempt's arguments."""
        attempt = self._calls.get(subject)
        if attempt is None:
            return
        attempt.arrived += len(data)
        if attempt.arrived > attempt.bulk:
            raise RemoteProtocolError(f"more bytes than invocation {subject} announced")
        if attempt.worker is not None and attempt.worker.relaying is attempt:
            self._inboxes.pass_on(attempt, data)
        else:
            attempt.parked.append(bytes(data))

    def kill(self, message: Kill) -> None:
        """Stop an attempt, or drop it."""
        attempt = self._calls.get(message.invocation, message.attempt)
        if attempt is None or attempt.killed:
            return
        if attempt.step is Step.QUEUED:
            self._give_back(attempt)
        elif attempt.step in (Step.STAGING, Step.STARTING):
            attempt.killed = True
            self._fail_unstarted(attempt, Outcome.KILLED, None)
        elif attempt.step is Step.SENT:
            attempt.killed = True
            self._inboxes.withdraw(attempt.worker)
        elif attempt.step is Step.RUNNING:
            attempt.killed = True
            self._inboxes.dispose(attempt.worker)

    def recall(self, message: Recall) -> None:
        """Give an attempt back if it has not started."""
        attempt = self._calls.get(message.invocation, message.attempt)
        if attempt is None:
            return
        if attempt.step is Step.QUEUED:
            self._give_back(attempt)
        elif attempt.step is Step.SENT:
            attempt.killed = True
            self._inboxes.withdraw(attempt.worker)

    def resize(self, message: Resize) -> None:
        """Change the limits of an attempt."""
        attempt = self._calls.get(message.invocation, message.attempt)
        if attempt is not None:
            attempt.limits = message.limits
            if attempt.run.soft:
                self._soften(attempt, message.limits)
            if attempt.step is Step.RUNNING:
                self._inboxes.watch(attempt.worker, attempt)

    def _soften(self, attempt: Attempt, limits: Resources) -> None:
        """Let an attempt outgrow the memory that is predicted for it, up to what the node has."""
        known = self._softened.get(id(limits))
        if known is None or known[0] is not limits:
            if len(self._softened) >= _MOST_SOFTENED:
                self._softened.clear()
            known = (limits, replace(limits, memory=self.node_memory))
            self._softened[id(limits)] = known
        attempt.limits = known[1]
        attempt.expected = limits.memory or 0

    def more(self, message: More) -> None:
        """The caller of a stream takes more items."""
        attempt = self._calls.get(message.invocation, message.attempt)
        if attempt is not None and attempt.step is Step.RUNNING:
            self._inboxes.send(attempt.worker, encode(message))

    # --- attempts that no worker has

    def _fail_unstarted(self, attempt: Attempt, outcome: Outcome, problem: str | None) -> None:
        """Answer for an attempt that no worker has."""
        self._staging.forget(attempt)
        self._gpus.forget(attempt)
        body = b""
        if problem is not None:
            body = bytes(dump_failure(RuntimeError(problem), "environment").parts[0])
        run = attempt.run
        self._answer(
            attempt,
            Ended(
                run.invocation, run.attempt, outcome, 0, 0, len(body), Usage(), b"", "", b"", body
            ),
            None,
        )

    def _fail_unusable(self, attempt: Attempt, problem: str) -> None:
        self._fail_unstarted(attempt, Outcome.UNUSABLE, problem)

    # --- taking calls back

    def _put_back(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts again that were taken back, or return those that were asked for."""
        self._calls.requeue(attempts)
        for attempt in attempts:
            if attempt.killed:
                self._give_back(attempt)

    def _give_back(self, attempt: Attempt) -> None:
        """Return a queued attempt to the farm."""
        self._calls.drop(attempt)
        self._tell(Returned(attempt.run.invocation, attempt.run.attempt))

    # --- from workers

    def read_size(self, worker: Worker) -> int:
        """How much may be read from a worker now."""
        if worker.settling is not None:
            # Of a worker that is gone, no more comes than its socket holds.
            return 0 if worker.gone is None else _READ
        if worker.gone is not None and (worker.handing is None or worker.handing.killed):
            return _READ
        if not worker.handing_left:
            return _READ
        room = self._outbox.room(worker.handing.run.invocation)
        if room <= 0:
            self._stalled[worker] = None
            return 0
        return min(room, worker.handing_left) + 16

    def resume_stalled(self) -> None:
        """Read again from workers that waited for the connection to the farm."""
        stalled, self._stalled = self._stalled, {}
        for worker in stalled:
            if worker.handing_left and self._outbox.room(worker.handing.run.invocation) <= 0:
                self._stalled[worker] = None
            else:
                self.pool.resume(worker)

    def on_worker_frame(self, worker: Worker, frame: Frame) -> None:
        """A worker answers."""
        if worker.settling is not None or worker.deferred:
            # The farm hears of calls in their order.
            worker.deferred.append(frame)
        else:
            self._take_frame(worker, frame)

    def _take_frame(self, worker: Worker, frame: Frame) -> None:
        if not worker.sent:
            return
        attempt = worker.sent[0]
        if frame.kind == _ITEM:
            item = decode(frame)
            assert isinstance(item, Item)
            header = pack_header(frame.kind, frame.subject, len(frame.body))
            self._outbox.send_in_order(frame.subject, header + frame.body)
            if item.size > len(item.body):
                self._hand_over(worker, attempt, item.size)
        elif frame.kind == _ENDED and frame.subject == attempt.run.invocation:
            worker.sent.popleft()
            _, outcome, _, flags, size = HEAD.unpack_from(frame.body)
            if not flags and size <= len(frame.body) and not attempt.killed:
                self._pass_on(worker, attempt, frame, outcome, size)
            else:
                self._take_result(worker, attempt, frame)
        elif frame.kind == _RETURNED:
            returned = decode(frame)
            assert isinstance(returned, Returned)
            if returned.attempt == attempt.sequence:
                self._skipped(worker, attempt)

    def on_missing(self, worker: Worker, missing: Missing) -> None:
        """A call waits for a module that its environment lacks."""
        self.questions.ask(worker, missing)

    def _skipped(self, worker: Worker, attempt: Attempt) -> None:
        """A worker has seen in time that it must not begin a call; see `page`."""
        worker.sent.popleft()
        # What was withdrawn along with it will be skipped as well.
        self._put_back(list(worker.sent))
        worker.sent.clear()
        if worker.slot.attempt is not attempt:
            self._put_back([attempt])
        elif attempt.killed:
            run = attempt.run
            ended = Ended(
                run.invocation, run.attempt, Outcome.KILLED, 0, 0, 0, Usage(), b"", "", b"", b""
            )
            self._answer(attempt, ended, worker)
        else:
            # It has the lane already: the farm was told that it runs.
            self._inboxes.hand(worker, attempt)

    def on_worker_bulk(self, worker: Worker, data: memoryview) -> None:
        """Pass on bytes of a large result or item."""
        if worker.settling is not None or worker.deferred:
            worker.deferred.append(bytes(data))
        else:
            self._pass_bulk(worker, data)

    def _pass_bulk(self, worker: Worker, data: memoryview) -> None:
        attempt = worker.handing
        if attempt is None or len(data) > worker.handing_left:
            # Nobody waits for it: its call was killed while it handed over its result, or
            # something in that process writes into our socket.
            if not worker.leaving:
                self._inboxes.dispose(worker)
            return
        invocation = attempt.run.invocation
        self._outbox.send_bulk(invocation, data, self._loop.now)
        worker.handing_left -= len(data)
        if not worker.handing_left:
            worker.handing = None
            self._outbox.close(invocation)

    def _hand_over(self, worker: Worker, attempt: Attempt, size: int) -> None:
        """Expect a payload's bytes, which go out as fast as the farm takes them."""
        worker.handing = attempt
        worker.handing_left = size
        self._outbox.open(attempt.run.invocation)

    def _pass_on(
        self, worker: Worker, attempt: Attempt, frame: Frame, outcome: int, size: int
    ) -> None:
        """Answer with what a worker that serves on has said, as it is."""
        usage = usage_of(frame.body)
        breach = exceeded(attempt.limits, usage, certain_memory=usage.memory_low)
        if breach is not None or usage.wall_time >= LONG:
            self._take_result(worker, attempt, frame)
            return
        self._calls.group(attempt).note(usage.wall_time)
        follower = self._follow(attempt, worker)
        following = follower.run.invocation if follower is not None else 0
        # Not behind bulk of its own: the farm must hear of ends in the order in which
        # lanes were handed on, and puts payloads of one subject in order itself.
        self._outbox.send(with_next(frame, following))
        self._go_on(attempt, worker.slot, worker, follower)

    def _take_result(self, worker: Worker, attempt: Attempt, frame: Frame) -> None:
        """Keep a result until its worker's supervisor has said what it knows."""
        ended = decode(frame)
        assert isinstance(ended, Ended)
        flags = Flag(ended.next)
        attempt.step = Step.SETTLING
        attempt.ended = replace(ended, next=0)
        worker.settling = attempt
        if Flag.LEAVING in flags:
            self._inboxes.leave(worker)
        large = ended.size > len(ended.body)
        if large:
            self._hand_over(worker, attempt, ended.size)
        if large or not worker.leaving:
            # Who leaves with nothing more to hand over is gone in a moment.
            ends = worker.leaving or Flag.TREE in flags
            message = internal.Settle(worker.number, attempt.sequence, ends, worker.leaving)
            worker.slot.channel.send(encode(message))
            self._loop.touch(worker.slot.channel)

    # --- from supervisors

    def on_supervisor(self, worker: Worker, message: Message) -> None:
        """A supervisor says something of one of its workers."""
        if isinstance(message, internal.Printed):
            self._printed(worker, message)
        elif isinstance(message, internal.Measured):
            attempt = of_sequence(worker, message.sequence)
            if attempt is not None:
                run = attempt.run
                self._tell(Reading(run.invocation, run.attempt, message.usage))
        elif isinstance(message, internal.Curve):
            attempt = of_sequence(worker, message.sequence)
            if attempt is not None:
                run = attempt.run
                self._tell(Details(run.invocation, run.attempt, b"", message.body))
        elif isinstance(message, internal.Settled):
            self._settled(worker, message)

    def _printed(self, worker: Worker, message: internal.Printed) -> None:
        attempt = of_sequence(worker, message.sequence)
        if attempt is not None:
            run = attempt.run
            self._tell(
                Output(run.invocation, run.attempt, message.stream, message.dropped, message.body)
            )

    def _settled(self, worker: Worker, message: internal.Settled) -> None:
        attempt = worker.settling
        if attempt is None or attempt.sequence != message.sequence:
            return
        worker.settling = None
        said = (message.usage, message.orphans, message.tail, message.resource)
        self._conclude(worker, attempt, *said)
        self._replay(worker)
        self.pool.resume(worker)

    def _replay(self, worker: Worker) -> None:
        """Go on with what a worker said while its supervisor was asked."""
        while worker.deferred and worker.settling is None:
            each = worker.deferred.popleft()
            if isinstance(each, Frame):
                self._take_frame(worker, each)
            else:
                self._pass_bulk(worker, memoryview(each))

    def on_gone(self, worker: Worker, gone: internal.WorkerGone) -> None:
        """A worker and its tree are gone: answer for what it had, take back the rest."""
        self._inboxes.leave(worker)
        self._stalled.pop(worker, None)
        if worker.handing_left and worker.settling is None:
            invocation = worker.handing.run.invocation
            self._outbox.close(invocation)
            lost = Lost(invocation, "its process died while it handed over its result")
            self._outbox.send_in_order(invocation, encode(lost))
        while (attempt := worker.settling) is not None:
            worker.settling = None
            last = attempt.sequence == gone.sequence
            if worker.handing is attempt and bulk_in(worker) < worker.handing_left:
                # Its result went down with it.
                self._outbox.close(attempt.run.invocation)
                worker.deferred.clear()
                self._answer_crash(worker, attempt, gone)
            else:
                seen, orphans = (gone.usage, gone.orphans) if last else (Usage(), 0.0)
                resource, code = (gone.resource, gone.exit) if last else ("", 0)
                self._conclude(worker, attempt, seen, orphans, gone.tail, resource, code)
            self._replay(worker)
        self._take_over(worker, gone)
        self._gpus.worker_gone(worker)

    def _take_over(self, worker: Worker, gone: internal.WorkerGone) -> None:
        """See to what lies in the inbox of a worker that is gone."""
        left = list(worker.sent)
        worker.sent.clear()
        if not left:
            return
        slot, first = worker.slot, left[0]
        self._put_back(left[1:])
        if first.sequence <= gone.sequence:
            self._answer_crash(worker, first, gone)
        elif slot.attempt is not first:
            self._put_back([first])
        else:
            # It has the lane, but had not begun: another worker runs it.
            first.worker = None
            self.pool.give_back(slot)
            # Arguments that were passed on went down with that worker, and are kept nowhere
            # else here: the farm sends them again with another attempt.
            if first.killed or sum(map(len, first.parked)) < first.arrived:
                self._fail_unstarted(first, Outcome.KILLED, None)
            else:
                self._staging.add(first)

    def before_slot_lost(self) -> None:
        """End what the workers of a supervisor have started that has died."""
        self.sweep()

    def on_slot_lost(self, slot: Slot) -> None:
        """A supervisor is gone, and its workers with it."""
        # Who waited for it waits for another.
        self._staging.slot_lost(slot)

    # --- answers

    def _conclude(
        self,
        worker: Worker,
        attempt: Attempt,
        seen: Usage,
        orphans: float,
        tail: bytes,
        resource: str,
        exit: int = 0,
    ) -> None:
        """Answer with a result, after its supervisor has said what it saw.

        Args:
            worker: Who ran it.
            attempt: The attempt.
            seen: The supervisor's view.
            orphans: Seconds of CPU of processes that it did not wait for.
            tail: The end of its output.
            resource: What it went over, as its supervisor says.
            exit: How the worker ended, if it has.
        """
        ended = attempt.ended
        usage = together(ended.usage, seen, orphans)
        breach = exceeded(attempt.limits, usage, certain_memory=usage.memory_low)
        if not resource and breach is not None:
            resource = breach.resource
        if not attempt.reuse and usage.exit is None:
            usage = replace(usage, exit=exit)
        answer = replace(ended, usage=usage)
        if attempt.killed:
            answer = without_payload(answer, Outcome.KILLED)
        elif resource:
            answer = replace(without_payload(answer, Outcome.EXHAUSTED), resource=resource)
        if answer.size != ended.size and worker.handing is attempt:
            self._outbox.close(attempt.run.invocation)
            worker.handing = None
            worker.handing_left = 0
            worker.deferred.clear()
            self._inboxes.dispose(worker)
        if answer.outcome is not Outcome.RETURNED:
            answer = replace(answer, output=tail)
        self._calls.group(attempt).note(usage.wall_time)
        self._answer(attempt, answer, worker)

    def _answer_crash(self, worker: Worker, attempt: Attempt, gone: internal.WorkerGone) -> None:
        """Answer for a call that ended with its process."""
        if attempt.killed:
            outcome = Outcome.KILLED
        elif gone.resource:
            outcome = Outcome.EXHAUSTED
        else:
            outcome = Outcome.CRASHED
        run = attempt.run
        self._answer(
            attempt,
            Ended(
                run.invocation, run.attempt, outcome, gone.exit, 0, 0,
                replace(gone.usage, exit=gone.exit), b"", gone.resource, gone.tail, b"",
            ),
            worker,
        )  # fmt: skip

    def _answer(self, attempt: Attempt, ended: Ended, worker: Worker | None) -> None:
        """Send the answer, and let the next one of the group have the lane."""
        follower = self._follow(attempt, worker)
        answer = replace(ended, next=follower.run.invocation if follower is not None else 0)
        self._outbox.send(encode(answer))
        self._go_on(attempt, worker.slot if worker is not None else None, worker, follower)

    def _follow(self, attempt: Attempt, worker: Worker | None) -> Attempt | None:
        """Forget an attempt; return the one that takes over its lane."""
        self.gpu_memory.end(attempt)
        follower = worker.sent[0] if worker is not None and worker.sent else None
        if follower is not None:
            follower.step = Step.RUNNING
        return self._calls.follow(attempt, follower)

    def _go_on(
        self, attempt: Attempt, slot: Slot | None, worker: Worker | None, follower: Attempt | None
    ) -> None:
        """Give a slot to who takes over the lane, or free it."""
        if follower is not None and follower.step is Step.RUNNING:
            assert slot is not None
            assert worker is not None
            self._gpus.hand_on(attempt, follower)
            slot.attempt = follower
            if worker.sent:
                self._inboxes.watch_if_due(worker, follower)
                self._inboxes.fill(worker)
            return
        held = slot if slot is not None and slot.attempt is attempt else None
        if held is not None and held.spare is not None and follower is not None:
            fits = held.spare is worker or not attempt.devices
            if fits and not self._staging.is_missing_something(follower):
                self._gpus.hand_on(attempt, follower)
                self._inboxes.give(held, follower)
                return
        self._gpus.end(attempt, worker)
        if held is not None:
            self.pool.give_back(held)
            self._staging.serve(held)
        self._gpus.serve()
        if follower is not None:
            self._staging.add(follower)
        else:
            for each in self._calls.stranded(attempt.run.group):
                self._tell(Returned(each.run.invocation, each.run.attempt))

    # --- from the pool

    def on_template(self, template: Template, problem: str, notes: str) -> None:
        """A template is ready, or will never be."""
        environment = template.key.environment
        if problem:
            self.environment_failed(environment, problem)
        elif self._staging.knows(environment):
            self._tell(EnvironmentState(environment, "", notes))

    def on_spare(self, slot: Slot) -> None:
        """A slot has a worker that waits for a call."""
        if slot.attempt is None:
            self._staging.serve(slot)
