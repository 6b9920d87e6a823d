"""Which model, and how far above what it says: by what that would have cost so far. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

# Margins that are compared: the errors that were made, from the median up, and beyond the
# largest by so much as the next one may well be.
_QUANTILES = (0.5, 0.7, 0.85, 0.93, 1.0)

# How much of its time a call runs on average until it is stopped for its memory (measured on
# traces with memory over time), and what the retry gets of what turns out to be needed.
_UNTIL_STOPPED = 0.6
_RETRY = 2.0

# Costs that differ by less (relative) are rounded differently: the simpler model is believed.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished call: what it needed, how long it took, and what each model had said before.

    Attributes:
        need: The logarithm of what it needed.
        seconds: What its errors weigh.
        said: Of each model, the logarithm it predicted, or ``None``.
    """

    need: float
    seconds: float
    said: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A model by its number, and the logarithm of the factor to put on top of it."""

    model: int
    margin: float


def choose(
    judged: Sequence[Judged], models: int, *, growth: float | None, fair: float = 0.0
) -> Choice:
    """Return the model and the margin that would have cost the least, in byte-seconds.

    Memory that is held and not used costs what it is. A call that outgrows its allocation costs
    the time until it is stopped and a retry, of its memory and of its cores; where it can
    grow in place, only a share of what it needs, for the times when there is no room.

    Args:
        judged: Finished calls, the latest last.
        models: How many models there are; the first one always has an answer.
        growth: That share, or ``None`` where calls are stopped.
        fair: The memory that belongs to its cores on a node, in bytes: what they are worth.
    """
    best, least = Choice(0, math.inf), math.inf
    weighed = [
        (each.need, each.seconds, math.exp(each.need) * each.seconds, each.said) for each in judged
    ]
    for model in range(models):
        known = sorted(
            (need - answer, seconds, used)
            for need, seconds, used, said in weighed
            if (answer := said[model]) is not None
        )
        # One that was silent about a third of them is no use for the next.
        if not known or 3 * len(known) < 2 * len(judged):
            continue
        for margin, cost in _costs(known, growth, fair):
            if cost < least * (1 - _EQUAL):
                best, least = Choice(model, margin), cost
    return best


def _margins(errors: Sequence[float]) -> list[float]:
    """Return margins to compare, from the sorted errors of a model."""
    count = len(errors)
    found = [errors[min(count - 1, int(q * count))] for q in _QUANTILES]
    # Of n samples of one distribution, the next is above all with probability 1 / (n + 1).
    found.append(errors[-1] + math.log1p(1 / count))
    return found


def _costs(
    known: Sequence[tuple[float, float, float]], growth: float | None, fair: float
) -> Iterator[tuple[float, float]]:
    """Yield margins, and what each would have cost, as a multiple of what was used.

    What a margin holds is need x exp(said + margin - need): sums over calls, made once, times
    exp(margin).

    Args:
        known: Errors of a model (logarithms), seconds and byte-seconds of calls, by error.
        growth, fair: As in `choose`.
    """
    errors, times, needs = zip(*known, strict=True)
    # Of the first n calls, for each n.
    held = [0.0, *accumulate([need * math.exp(-error) for error, _, need in known])]
    used = [0.0, *accumulate(needs)]
    seconds = [0.0, *accumulate(times)]
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
