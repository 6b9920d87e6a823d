"""Attempts that have a lane, until a worker has them: what they wait for, and in which order.

First for their environment, function and objects, then for GPUs, then for a slot.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from .blobs import Blobs
from .calls import Attempt, Step
from .pool import Key, Pool, Recipe, Slot


class Staging:
    """Gives attempts to slots as soon as what they need is there.

    Args:
        blobs: Functions and objects.
        pool: Returns the pool.
        claim: Reserves the GPUs that an attempt needs, or notes that it waits for some.
        give: Gives an attempt to the worker of a slot.
        fail: Answers for an attempt whose environment cannot be had, with the reason.
    """

    def __init__(
        self,
        blobs: Blobs,
        pool: Callable[[], Pool],
        claim: Callable[[Attempt], bool],
        give: Callable[[Slot, Attempt], None],
        fail: Callable[[Attempt, str], None],
    ) -> None:
        self._blobs = blobs
        self._pool = pool
        self._claim = claim
        self._give = give
        self._fail = fail
        self._recipes: dict[int, Recipe] = {}
        self._problems: dict[int, str] = {}
        self._incomplete: set[Attempt] = set()
        self._slotless: dict[Key, deque[Attempt]] = {}

    # --- environments

    def knows(self, environment: int) -> bool:
        """Tell whether an environment can be used."""
        return environment in self._recipes

    def environment_ready(self, environment: int, recipe: Recipe) -> None:
        """Note how to start what runs in an environment."""
        self._recipes[environment] = recipe
        self._problems.pop(environment, None)
        self._pool().template(Key(environment, 1), recipe)

    def environment_failed(self, environment: int, problem: str) -> None:
        """Fail what waits for a worker in an environment that cannot be had."""
        self._problems[environment] = problem
        self._recipes.pop(environment, None)
        self._pool().drop(environment)
        for key in [key for key in self._slotless if key.environment == environment]:
            for attempt in list(self._slotless[key]):
                self._fail(attempt, problem)

    # --- attempts

    def is_missing_something(self, attempt: Attempt) -> bool:
        """Tell whether something that an attempt needs is not here yet."""
        run = attempt.run
        if run.environment not in self._recipes or run.function not in self._blobs:
            return True
        refs = struct.unpack(f"<{len(run.refs) // 8}Q", run.refs) if run.refs else ()
        return any(ref not in self._blobs for ref in refs)

    def add(self, attempt: Attempt) -> None:
        """Start an attempt that has a lane, or let it wait for what it needs."""
        attempt.step = Step.STAGING
        problem = self._problems.get(attempt.run.environment)
        if problem is not None:
            self._fail(attempt, problem)
        elif self.is_missing_something(attempt):
            self._incomplete.add(attempt)
        else:
            self._incomplete.discard(attempt)
            self._start(attempt)

    def look_again(self) -> None:
        """Something has come, or will never come: see who waited for it."""
        for attempt in list(self._incomplete):
            if attempt in self._incomplete:
                self.add(attempt)

    def forget(self, attempt: Attempt) -> None:
        """An attempt is not wanted any more."""
        self._incomplete.discard(attempt)
        for waiting in self._slotless.values():
            if attempt in waiting:
                waiting.remove(attempt)

    # --- slots

    def _start(self, attempt: Attempt) -> None:
        """Give an attempt to an idle slot, or have one made."""
        attempt.step = Step.STARTING
        if not self._claim(attempt):
            return
        key = Key(attempt.run.environment, max(1, int(attempt.limits.cores or 1)))
        slot = self._take_slot(key, attempt)
        if slot is not None:
            self._give(slot, attempt)
            return
        waiting = self._slotless.setdefault(key, deque())
        waiting.append(attempt)
        if self._pool().coming(key) < len(waiting):
            self._pool().add_slot(key, self._recipes[key.environment])

    def _take_slot(self, key: Key, attempt: Attempt) -> Slot | None:
        """Return an idle slot for an attempt; see `gpus` for why a fresh one is needed for some."""
        return self._pool().take(key, attempt.reuse and not attempt.devices)

    def serve(self, slot: Slot) -> None:
        """Give a slot that has become free to an attempt that waits for one of its kind."""
        waiting = self._slotless.get(slot.template.key)
        if not waiting or slot.spare is None:
            return
        for attempt in waiting:
            taken = self._take_slot(slot.template.key, attempt)
            if taken is not None:
                waiting.remove(attempt)
                self._give(taken, attempt)
                return

    def slot_lost(self, slot: Slot) -> None:
        """Let those that may have waited for a slot wait for another one."""
        for attempt in self._slotless.pop(slot.template.key, ()):
            self.add(attempt)
