"""What does it cost to size a call, by what is known of its arguments?

The default sizer alone, asked for an allocation and an expectation and then told what the call
used; and the decisions of a farm of ten nodes whose calls all wait at the beginning, less
what the same calls cost where nobody sizes them. Calls whose feature has another value each are
the dearest: they wait in many queues, and each is sized for itself.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence

from afarm.resources import Resources, Usage
from afarm.sizing import AutoSizer, Sizer, Unmanaged

from .figures import Figure
from .question import aim, median_of
from .replay.simulation import replay
from .replay.trace import MB, Call

LARGEST = Resources(cores=16, memory=64_000 * MB)
_NODES = 10
_NUMBERS = (1_000, 10_000)

ALONE, FARM = "the sizer, a call", "in a farm, 1,000 calls"


def _nothing(draw: random.Random) -> tuple[dict[str, float], float]:
    return {}, draw.lognormvariate(20, 0.3)


def _few_values(draw: random.Random) -> tuple[dict[str, float], float]:
    level = draw.choice((1.0, 2.0, 4.0, 8.0, 16.0))
    return {"level": level}, 100 * MB * level * draw.lognormvariate(0, 0.1)


def _distinct(draw: random.Random) -> tuple[dict[str, float], float]:
    size = draw.lognormvariate(18, 1)
    return {"size": size}, 300 * MB + 8 * size * draw.lognormvariate(0, 0.1)


def _telling_nothing(draw: random.Random) -> tuple[dict[str, float], float]:
    return {"seed": draw.random()}, draw.lognormvariate(20, 0.3)


def _eight(draw: random.Random) -> tuple[dict[str, float], float]:
    features, memory = _distinct(draw)
    return {**features, **{f"seed{n}": draw.random() for n in range(7)}}, memory


KINDS: dict[str, Callable[[random.Random], tuple[dict[str, float], float]]] = {
    "no feature": _nothing,
    "a feature of five values": _few_values,
    "a feature, all values distinct": _distinct,
    "a feature that tells nothing": _telling_nothing,
    "eight features, all values distinct": _eight,
    "four calls of each category": _nothing,
}
_IN_ALL = 10**9
_OF_EACH = {"four calls of each category": 4}
SUBJECTS = {f"{kind}, {number:,} calls": (kind, number) for kind in KINDS for number in _NUMBERS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the seed, and how much of it."""
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=float, default=1.0, help="of the calls of each subject")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the kinds of features, each for two numbers of calls."""
    return list(SUBJECTS)


def calls_of(kind: str, number: int, seed: int) -> Iterator[Call]:
    """Yield calls, mostly of one category, half a minute long."""
    draw = random.Random(f"{seed} {kind}")
    for place in range(number):
        features, memory = KINDS[kind](draw)
        memory = min(memory, 0.9 * (LARGEST.memory or math.inf))
        name = f"f{place // _OF_EACH.get(kind, _IN_ALL)}"
        yield Call(name, math.ceil(memory), 1.0, draw.uniform(5.0, 50.0), features)


def time_alone(calls: Sequence[Call]) -> float:
    """Return the processor time of the sizer alone, in seconds."""
    sizer = AutoSizer()
    usages = [
        Usage(wall_time=call.wall_time, cpu_user=call.wall_time, memory=call.memory)
        for call in calls
    ]
    began = time.process_time()
    for call, usage in zip(calls, usages, strict=True):
        name, features = call.category, call.features
        sizer.allocate(name, features, attempt=0, previous=None, largest=LARGEST)
        sizer.expect(name, features)
        sizer.observe(name, features, usage, exhausted=False)
    return time.process_time() - began


def time_farm(calls: Sequence[Call], sizer: Sizer) -> float:
    """Return the processor time of all decisions about some calls, in seconds."""
    limited = not isinstance(sizer, Unmanaged)
    return replay(calls, [LARGEST] * _NODES, sizer, limited=limited).deciding


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Size the calls of one subject once."""
    kind, number = SUBJECTS[subject]
    calls = list(calls_of(kind, max(10, int(number * options.part)), options.seed))
    alone = time_alone(calls) / len(calls)
    small = [Call(one.category, MB, one.cores, one.wall_time, one.features) for one in calls]
    more = time_farm(calls, AutoSizer()) - time_farm(small, Unmanaged())
    return [
        Figure(subject, ALONE, "s", (alone,)),
        Figure(subject, FARM, "s", (1000 * more / len(calls),)),
    ]


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what sizing may cost."""
    lines = []
    for subject in SUBJECTS:
        alone = median_of(figures, subject, ALONE)
        if alone is not None:
            lines.append(aim(f"{subject}, sizing", 1e6 * alone, 50, at_most=True, unit=" us"))
        farm = median_of(figures, subject, FARM)
        if farm is not None:
            lines.append(aim(f"{subject}, 1,000 in a farm", farm, 0.2, at_most=True, unit=" s"))
    return lines
