"""What the benchmarks ask of a system: a few calls on two workers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WORKERS = 2

# Waits for one call's result, at most so many seconds, and returns or raises it.
Wait = Callable[[float], Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call of several ended.

    Attributes:
        value: Its result; ``None`` if it failed.
        error: The name of the error it ended with, ``"no answer"``, or empty.
        seconds: From the first submission to its answer.
    """

    value: Any
    error: str
    seconds: float


class Peer(ABC):
    """A system with two workers. Opened once, used, closed."""

    @abstractmethod
    def open(self) -> None:
        """Start it; both workers are up when this returns, as far as it can be told."""

    @abstractmethod
    def close(self) -> None:
        """End it, and whatever it left."""

    @abstractmethod
    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        """Begin a call; what is returned waits for its result."""

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Make one call and return its result."""
        return self.submit(fn, *args)(60.0)

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        """Make a call for each argument, all at once, and return the results."""
        waits = [self.submit(fn, argument) for argument in arguments]
        return [wait(120.0) for wait in waits]

    def round_trips(self, fn: Callable[..., Any], number: int) -> list[float]:
        """Return how many seconds each of ``number`` calls took, made one at a time."""
        clock = time.perf_counter
        took = []
        for _ in range(number):
            began = clock()
            self.call(fn)
            took.append(clock() - began)
        return took

    def answers(
        self, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], patience: float
    ) -> list[Answer]:
        """Make different calls all at once; give up on all ``patience`` seconds later."""
        began = time.perf_counter()
        waits: list[Wait | BaseException] = []
        for fn, arguments in calls:
            try:
                waits.append(self.submit(fn, *arguments))
            except Exception as exc:  # a pool that is broken refuses at once
                waits.append(exc)
        answers: list[Answer] = []
        for wait in waits:
            left = max(0.0, began + patience - time.perf_counter())
            answers.append(_answer(wait, left, began))
        return answers


def _answer(wait: Wait | BaseException, left: float, began: float) -> Answer:
    value, error = None, ""
    if isinstance(wait, BaseException):
        error = type(wait).__name__
    else:
        try:
            value = wait(left)
        except Exception as exc:
            error = type(exc).__name__
            if error in ("TimeoutError", "GetTimeoutError") or isinstance(exc, TimeoutError):
                error = "no answer"
    return Answer(value, error, time.perf_counter() - began)
