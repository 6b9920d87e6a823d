"""What do two matrix products at once lose to each other, and does binding them to cores help?

Two processes on all the cores there are, half of them for each. Their libraries start as
many threads as there are cores (what they do by themselves), or as many as each has; the
processes may run anywhere, or are bound to cores of their own before they import anything.
At the end afarm, with half of the cores stated for each call.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import afarm

from .figures import Figure
from .question import CannotMeasure, aim, median_of

FREE, FREE_BOUND = "all threads", "all threads, bound"
LIMITED, LIMITED_BOUND = "own threads", "own threads, bound"
FARM = "afarm"

METRIC = "both done"

SIZE = 1000
# Together about a second on one core of 2 GHz.
PRODUCTS = 20

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_PROGRAM = """
import numpy, sys
matrix = numpy.random.default_rng(0).random(({size}, {size}))
matrix @ matrix
print("ready", flush=True)
sys.stdin.readline()
for _ in range({products}):
    matrix @ matrix
print("done", flush=True)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how much work it is."""
    parser.add_argument("--products", type=int, default=PRODUCTS, help=f"default {PRODUCTS}")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the ways of sharing the cores."""
    return [FREE, FREE_BOUND, LIMITED, LIMITED_BOUND, FARM]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Let two processes multiply at once; take the time until both are done."""
    cpus = sorted(os.sched_getaffinity(0))
    half = len(cpus) // 2
    if not half:
        raise CannotMeasure("there is only one core")
    if importlib.util.find_spec("numpy") is None:
        raise CannotMeasure("numpy is not installed")
    if subject == FARM:
        took = asyncio.run(_in_farm(half, options.products))
    else:
        threads = half if subject in (LIMITED, LIMITED_BOUND) else len(cpus)
        bound = subject in (FREE_BOUND, LIMITED_BOUND)
        parts = [cpus[:half], cpus[half : 2 * half]] if bound else [cpus, cpus]
        took = _in_processes(parts, threads, options.products)
    return [Figure(subject, METRIC, "s", (took,))]


def _in_processes(parts: Sequence[Sequence[int]], threads: int, products: int) -> float:
    program = _PROGRAM.format(size=SIZE, products=products)
    environment = {**os.environ, **dict.fromkeys(VARIABLES, str(threads))}
    processes = []
    for cpus in parts:
        # Bound first and inherited: threads of a library are made when it is imported.
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
        )
        os.sched_setaffinity(0, before)
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
    took = time.perf_counter() - began
    for process in processes:
        process.communicate()
    return took


def _make_multiply() -> Callable[[int, int], None]:
    def multiply(size: int, products: int) -> None:
        import numpy

        matrix = numpy.random.default_rng(0).random((size, size))
        for _ in range(products):
            matrix @ matrix

    return multiply


async def _in_farm(cores: int, products: int) -> float:
    multiply = _make_multiply()
    async with afarm.Farm([afarm.LocalNode(cores=2 * cores)], progress=False) as farm:
        half = farm.options(cores=cores, isolation="reuse")

        async def both(count: int) -> None:
            await asyncio.gather(*(half.submit(multiply, SIZE, count) for _ in range(2)))

        await both(1)
        began = time.perf_counter()
        await both(products)
        return time.perf_counter() - began


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare the ways with each other."""
    limited = median_of(figures, LIMITED, METRIC)
    if not limited:
        return []
    lines = []
    for name in (FREE, FREE_BOUND, LIMITED_BOUND):
        took = median_of(figures, name, METRIC)
        if took is not None:
            lines.append(f"{name}: {took / limited:.2f} times as long as with own threads")
    farm = median_of(figures, FARM, METRIC)
    if farm is not None:
        lines.append(aim("afarm, to own threads", farm / limited, 1.1, at_most=True))
    return lines
