"""Calls of every kind at once, some of them cancelled: each ends as it must, and none is forgotten.

What other tests try one by one happens here together, in every isolation, with large and
small payloads, with calls sent ahead and lanes handed on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import afarm
from tests.farm import functions as do

Submit = Callable[[afarm.Farm], "afarm.Invocation[Any]"]

# How it is submitted, and what it must answer: a value, or a type of exception.
KINDS: list[tuple[Submit, object]] = [
    (lambda farm: farm.submit(do.add, 1), 2),
    (lambda farm: farm.submit(do.add, 2), 3),
    (lambda farm: farm.submit(do.sleep, 0.02, "slept"), "slept"),
    (lambda farm: farm.submit(do.blob, 300_000), b"x" * 300_000),
    (lambda farm: farm.submit(do.blob, 3_000_000), b"x" * 3_000_000),
    (lambda farm: farm.submit(len, b"y" * 65_537), 65_537),
    (lambda farm: farm.submit(len, b"y" * 2_000_000), 2_000_000),
    (lambda farm: farm.submit(do.fail), ValueError),
    (lambda farm: farm.submit(do.leave_at_once, 3), afarm.InvocationCrashed),
    (lambda farm: farm.submit(do.signal_self, 11), afarm.InvocationCrashed),
    (lambda farm: farm.submit(do.kill_parent), afarm.InvocationCrashed),
    (lambda farm: farm.submit(do.print_and_return, "hello"), "hello"),
    (lambda farm: farm.submit(do.change_state), None),
    (
        lambda farm: farm.options(memory="20 MiB").submit(do.take_memory, 90 << 20, 0.1),
        afarm.ResourceExhausted,
    ),
    (lambda farm: farm.options(wall_time=0.1).submit(do.sleep, 5), afarm.InvocationTimeout),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_mixture_of_everything_ends_as_it_must(nothing_left: None, seed: int) -> None:
    rng = random.Random(seed)
    node = afarm.LocalNode(cores=4)
    async with asyncio.timeout(60), afarm.Farm([node], progress=False) as farm:
        views = [
            farm.options(isolation=isolation, category=f"{isolation} {name}")
            for isolation in ("fork", "reuse", "auto")
            for name in "ab"
        ]
        for size in (1, 40, 150, 150):
            chosen = [rng.choices(KINDS, [8, 8] + [1] * (len(KINDS) - 2))[0] for _ in range(size)]
            calls = [submit(rng.choice(views)) for submit, _ in chosen]
            streams = [asyncio.create_task(items(rng.choice(views), 30)) for _ in range(3)]
            cancelled = set(rng.sample(range(size), size // 12))
            for number in cancelled:
                asyncio.get_running_loop().call_later(rng.random() * 0.1, calls[number].cancel)
            results = await asyncio.gather(*calls, return_exceptions=True)
            for number, (result, (_, expected)) in enumerate(zip(results, chosen, strict=True)):
                if number in cancelled and isinstance(result, asyncio.CancelledError):
                    continue
                if isinstance(expected, type):
                    assert isinstance(result, expected), calls[number]
                else:
                    assert result == expected, calls[number]
            assert [await stream for stream in streams] == [list(range(30))] * 3
        assert farm.stats().lost == 0


async def items(view: afarm.Farm, count: int) -> list[int]:
    return [item async for item in view.stream(do.numbers, count)]
