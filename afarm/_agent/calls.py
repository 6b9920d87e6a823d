"""The attempts an agent has, and the groups in which queued ones follow on others. Pure.

An attempt that is not queued holds an allocation, a *lane* of its group. When it ends,
the next queued one of the group takes over the lane; if there is none, the lane ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .._wire.messages import Isolation, Run
from ..resources import Resources

# How much the last call's time counts in the running estimate of a group.
_WEIGHT = 0.25


class Step(Enum):
    """How far an attempt has come."""

    QUEUED = "queued"  # waits for a lane of its group
    STAGING = "staging"  # has a lane; something it needs is not there yet
    STARTING = "starting"  # has a lane; waits for a worker
    SENT = "sent"  # lies in a worker's inbox behind another
    RUNNING = "running"  # a worker has it
    SETTLING = "settling"  # over; the supervisor is asked about its tree and output


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of an invocation.

    Attributes:
        run: What the farm sent.
        frame: The same as a frame, to be passed on as it is.
        parked: Bulk of its arguments that came before it had a worker.
        arrived: Bytes of its bulk that have come.
        relayed: Bytes that were passed on since the farm was last given credit.
        worker: The worker that has it.
        sequence: Its number among that worker's calls.
        killed: Whether the farm asked for its end.
        limits: What it is ended for, as last resized.
        expected: Bytes of memory that it is predicted to need, if that is not a limit; 0: it is.
        ended: What its worker has said of it.
        devices: The GPUs that are its own, as CUDA names them.
    """

    run: Run
    frame: bytes
    step: Step
    limits: Resources
    parked: deque[bytes] = field(default_factory=deque)
    arrived: int = 0
    relayed: int = 0
    worker: Any = None
    sequence: int = 0
    killed: bool = False
    expected: int = 0
    ended: Any = None
    devices: tuple[str, ...] = ()

    @property
    def bulk(self) -> int:
        """Bytes of arguments that come beside the message."""
        return self.run.size if self.run.size > len(self.run.body) else 0

    @property
    def reuse(self) -> bool:
        """Whether it may share a process with other calls."""
        return self.run.isolation is Isolation.REUSE


@dataclass(slots=True)
class Group:
    """Attempts that follow on one another.

    Attributes:
        queue: Those without a lane, the next one first.
        lanes: How many have one.
        wall_time: Seconds a call takes, a running estimate; ``None`` before the first.
    """

    queue: deque[Attempt] = field(default_factory=deque)
    lanes: int = 0
    wall_time: float | None = None

    def note(self, wall_time: float) -> None:
        """Take another call's time into the estimate."""
        known = self.wall_time
        self.wall_time = wall_time if known is None else known + _WEIGHT * (wall_time - known)


class Calls:
    """Every attempt that has not been answered for."""

    def __init__(self) -> None:
        self._attempts: dict[int, Attempt] = {}
        self._groups: dict[int, Group] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._attempts.values()))

    def get(self, invocation: int, attempt: int | None = None) -> Attempt | None:
        """Return an attempt, if it is (still) here."""
        found = self._attempts.get(invocation)
        if found is None or (attempt is not None and found.run.attempt != attempt):
            return None
        return found

    def group(self, attempt: Attempt) -> Group:
        """Return the group of an attempt."""
        return self._groups[attempt.run.group]

    def add(self, run: Run, frame: bytes) -> Attempt | None:
        """Take a new attempt; ``None`` if it is queued behind nothing and must be returned."""
        group = self._groups.get(run.group)
        if run.queued:
            if group is None:
                return None
            attempt = Attempt(run, frame, Step.QUEUED, run.limits)
            group.queue.append(attempt)
        else:
            if group is None:
                group = self._groups[run.group] = Group()
            group.lanes += 1
            attempt = Attempt(run, frame, Step.STAGING, run.limits)
        self._attempts[run.invocation] = attempt
        return attempt

    def requeue(self, attempts: Sequence[Attempt]) -> None:
        """Put attempts that were taken back from a worker to the front of their group."""
        for attempt in reversed(attempts):
            attempt.step = Step.QUEUED
            attempt.worker = None
            self.group(attempt).queue.appendleft(attempt)

    def drop(self, attempt: Attempt) -> None:
        """Forget an attempt that has no lane."""
        if attempt.step is Step.QUEUED:
            self.group(attempt).queue.remove(attempt)
        del self._attempts[attempt.run.invocation]

    def follow(self, attempt: Attempt, follower: Attempt | None = None) -> Attempt | None:
        """Forget an attempt that had a lane; return the one that takes the lane over.

        Args:
            attempt: The one that is over.
            follower: The one that a worker has next in its inbox, if there is one.
        """
        del self._attempts[attempt.run.invocation]
        group = self.group(attempt)
        if follower is None and group.queue:
            follower = group.queue.popleft()
            follower.step = Step.STAGING
        if follower is None:
            group.lanes -= 1
        return follower

    def stranded(self, group_id: int) -> list[Attempt]:
        """Return the queued attempts of a group that has no lane left, forgetting both."""
        group = self._groups.get(group_id)
        if group is None or group.lanes:
            return []
        del self._groups[group_id]
        for attempt in group.queue:
            del self._attempts[attempt.run.invocation]
        return list(group.queue)
