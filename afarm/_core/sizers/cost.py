"""Which model, and how far above what it says: by what that would have cost so far. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

# Margins that are compared: the errors that were made, from the median up, and beyond the
# largest by so much as the next one may well be.
_QUANTILES = (0.5, 0.7, 0.85, 0.93, 1.0)

# How much of its time a call runs on average until it is stopped for its memory (measured on
# traces with memory over time), and what the retry gets of what turns out to be needed.
_UNTIL_STOPPED = 0.6
_RETRY = 2.0

# Of those that needed more than something, what is granted holds so many.
_HELD_BEYOND = 0.8

# Costs that differ by less (relative) are rounded differently: the simpler model is believed.
_EQUAL = 1e-9


class Choice(NamedTuple):
    """A model by its number, and the logarithm of the factor to put on top of it."""

    model: int
    margin: float


# Of a call: the error of a model (need - answer, logarithms), seconds, byte-seconds that it
# needed, and those that the answer alone would have held.
_Weighed = tuple[float, float, float, float]


class Judgement:
    """What each model said of the last calls before they were seen, and what those needed.

    What a margin costs is added up from what was worked out when a call was added: of 48 calls
    and five models the best takes 0.1 ms.

    Args:
        models: How many there are; the first one always has an answer.
        most: Calls that are remembered.
    """

    def __init__(self, models: int, most: int) -> None:
        self._said: list[deque[_Weighed | None]] = [deque(maxlen=most) for _ in range(models)]
        self._errors: dict[int, list[float]] = {}  # sorted, of the models that were asked for

    def __len__(self) -> int:
        """Return how many calls are remembered."""
        return len(self._said[0])

    def add(self, need: float, seconds: float, said: Sequence[float | None]) -> None:
        """Take a call.

        Args:
            need: The logarithm of what it needed, in bytes.
            seconds: How long it took: what errors weigh.
            said: Of each model, the logarithm that it predicted, or ``None``.
        """
        used = math.exp(need) * seconds
        for window, answer in zip(self._said, said, strict=True):
            window.append(
                None
                if answer is None
                else (need - answer, seconds, used, math.exp(answer) * seconds)
            )
        self._errors.clear()

    def clear(self) -> None:
        """Forget all calls."""
        for window in self._said:
            window.clear()
        self._errors.clear()

    def choose(self, *, growth: float | None, fair: float = 0.0) -> Choice:
        """Return the model and the margin that would have cost the least, in byte-seconds.

        Memory that is held and not used costs what it is. A call that outgrows its allocation
        costs the time until it is stopped and a retry, of its memory and of its cores; where it
        can grow in place, only a share of what it needs, for the times when there is no room.

        Args:
            growth: That share, or ``None`` where calls are stopped.
            fair: The memory that belongs to its cores on a node, in bytes: what they are worth.
        """
        best, least = Choice(0, math.inf), math.inf
        for model, window in enumerate(self._said):
            known = [each for each in window if each is not None]
            # One that was silent about a third of them is no use for the next.
            if not known or 3 * len(known) < 2 * len(window):
                continue
            known.sort()
            for margin, cost in _costs(known, growth, fair):
                if cost < least * (1 - _EQUAL):
                    best, least = Choice(model, margin), cost
        return best

    def margin_beyond(self, model: int, over: float) -> float | None:
        """Return the margin that would have held most calls that needed more than predicted.

        Args:
            model: Its number.
            over: By more than this (a logarithm).

        Returns:
            A logarithm; ``None`` where no call did.
        """
        errors = self._errors.get(model)
        if errors is None:
            known = (each[0] for each in self._said[model] if each is not None)
            errors = self._errors[model] = sorted(known)
        first = bisect_right(errors, over)
        count = len(errors) - first
        return errors[first + min(count - 1, int(_HELD_BEYOND * count))] if count else None


def _margins(errors: Sequence[float]) -> list[float]:
    """Return margins to compare, from the sorted errors of a model."""
    count = len(errors)
    found = [errors[min(count - 1, int(q * count))] for q in _QUANTILES]
    # Of n samples of one distribution, the next is above all with probability 1 / (n + 1).
    found.append(errors[-1] + math.log1p(1 / count))
    return found


def _costs(
    known: Sequence[_Weighed], growth: float | None, fair: float
) -> Iterator[tuple[float, float]]:
    """Yield margins, and what each would have cost, as a multiple of what was used.

    What a margin holds of calls is what the model's answers alone would have held of them, times
    exp(margin).

    Args:
        known: What a model said of calls, by error.
        growth, fair: As in `Judgement.choose`.
    """
    errors, times, needs, answers = zip(*known, strict=True)
    # Of the first n calls, for each n.
    held = [0.0, *accumulate(answers)]
    used = [0.0, *accumulate(needs)]
    seconds = [0.0, *accumulate(times)] if growth is None else []
    # The unseen tail: one more call, half as large again as the largest, that none holds.
    tail = _RETRY * 1.5 * max(needs) / (len(known) + 1)
    for margin in _margins(errors):
        enough = bisect_right(errors, margin)
        factor = math.exp(margin)
        cost = factor * held[enough]
        outgrown = used[-1] - used[enough]
        if growth is not None:
            cost += (1 + growth) * outgrown
        else:
            stopped = factor * (held[-1] - held[enough]) + fair * (seconds[-1] - seconds[enough])
            cost += _UNTIL_STOPPED * stopped + _RETRY * outgrown + tail
        # Of what those calls used: not all models are judged by the same ones.
        yield margin, cost / used[-1]
