"""Traces: what each call of a workload needed, from a file or made with a fixed seed."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MB = 1_000_000

# When a running maximum reaches 10 %, 20 % ... 100 % of the peak, as fractions of the run,
# where a trace does not say: four ways in which programs grow. Over their run the maximum
# averages 47 to 66 % of the peak, as it does in real traces.
RAMPS = (
    tuple(0.1 * n for n in range(1, 11)),
    tuple((0.1 * n) ** 2 for n in range(1, 11)),
    tuple((0.1 * n) ** 0.5 for n in range(1, 11)),
    (0.01, 0.02, 0.03, 0.04, 0.05, 0.5, 0.55, 0.6, 0.65, 0.9),
)


@dataclass(frozen=True, slots=True)
class Call:
    """What one call needs.

    Attributes:
        category: Its kind.
        memory: Its peak, in bytes.
        cores: What it keeps busy on average.
        wall_time: Seconds it takes with as many cores.
        features: What is known of its arguments beforehand.
        ramp: When its running maximum reaches each tenth of the peak, as fractions of the run.
    """

    category: str
    memory: int
    cores: float
    wall_time: float
    features: Mapping[str, float] = field(default_factory=dict)
    ramp: tuple[float, ...] = RAMPS[0]

    def reaches(self, memory: float) -> float:
        """Return the fraction of its run after which it uses more than so many bytes."""
        tenths = 10 * memory / self.memory
        if tenths >= 10:
            return math.inf
        below = int(tenths)
        before = self.ramp[below - 1] if below else 0.0
        return before + (tenths - below) * (self.ramp[below] - before)

    def uses(self, fraction: float) -> float:
        """Return the bytes of its running maximum after a fraction of its run."""
        before = 0.0
        for tenth, reached in enumerate(self.ramp):
            if fraction < reached:
                part = (fraction - before) / (reached - before)
                return self.memory * (tenth + part) / 10
            before = reached
        return float(self.memory)


def load(folder: Path) -> dict[str, list[Call]]:
    """Return the traces of a folder, by name: one CSV file each, calls in their order.

    Columns: ``category, input_size, input_kind, peak_memory_mb, cpu_cores_avg, wall_s, ramp``;
    sizes of inputs count where their kind says ``a priori``.
    """
    found = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found[path.stem] = list(_calls(csv.DictReader(file)))
    return found


def _calls(rows: Iterator[dict[str, str]] | csv.DictReader[str]) -> Iterator[Call]:
    for number, row in enumerate(rows):
        ramp = tuple(float(part) for part in row["ramp"].split())
        known = "a priori" in row["input_kind"] and row["input_size"]
        yield Call(
            category=row["category"],
            memory=max(1, round(float(row["peak_memory_mb"]) * MB)),
            cores=max(0.05, float(row["cpu_cores_avg"] or 1)),
            wall_time=max(0.01, float(row["wall_s"])),
            features={"input": float(row["input_size"])} if known else {},
            ramp=ramp if len(ramp) == 10 else RAMPS[number % len(RAMPS)],
        )


def sample(calls: list[Call], most: int) -> list[Call]:
    """Return at most so many calls, evenly out of all, in their order."""
    step = max(1.0, len(calls) / most)
    return [calls[int(n * step)] for n in range(min(most, len(calls)))]


# --- workloads of the shapes that the literature describes


def _normal(draw: random.Random, mean: float, spread: float) -> float:
    return max(0.05 * mean, draw.gauss(mean, spread * mean))


def _uniform_kinds(draw: random.Random, number: int) -> Iterator[Call]:
    """Several kinds, each with its own level and little spread (a columnar analysis)."""
    kinds = [(f"kind{n}", draw.uniform(100, 3000), draw.uniform(20, 300)) for n in range(4)]
    for n in range(number):
        name, memory, wall = kinds[n * len(kinds) // number]
        yield _call(draw, name, _normal(draw, memory, 0.1), 1.0, _normal(draw, wall, 0.3))


def _bimodal(draw: random.Random, number: int) -> Iterator[Call]:
    """One kind with two levels; nothing tells them apart."""
    for _ in range(number):
        memory = _normal(draw, 400 if draw.random() < 0.7 else 2400, 0.15)
        yield _call(draw, "bimodal", memory, 1.0, _normal(draw, 120, 0.4))


def _rare_giants(draw: random.Random, number: int) -> Iterator[Call]:
    """Small ones, and one in a hundred that takes 20 times as much."""
    for _ in range(number):
        giant = draw.random() < 0.01
        memory = _normal(draw, 6000 if giant else 300, 0.2)
        yield _call(draw, "mostly small", memory, 1.0, _normal(draw, 400 if giant else 60, 0.3))


def _by_input(draw: random.Random, number: int) -> Iterator[Call]:
    """Memory and time follow from the size of the input, which is known."""
    for _ in range(number):
        size = math.exp(draw.gauss(18, 1))
        memory = 150 + 8 * (size / MB) ** 0.9 * draw.lognormvariate(0, 0.1)
        wall = 10 + 0.8 * size / MB * draw.lognormvariate(0, 0.2)
        yield _call(draw, "by input", memory, 1.0, wall, {"input": size})


def _drift(draw: random.Random, number: int) -> Iterator[Call]:
    """What a kind needs rises threefold while it runs."""
    for n in range(number):
        memory = _normal(draw, 300 * (1 + 2 * n / number), 0.1)
        yield _call(draw, "drifting", memory, 1.0, _normal(draw, 90, 0.3))


def _heavy_tail(draw: random.Random, number: int) -> Iterator[Call]:
    """Pareto in memory and time, over a dozen kinds, some with several threads."""
    kinds = [(f"kind{n}", draw.uniform(50, 800), draw.choice((1, 1, 1, 2, 4))) for n in range(12)]
    for _ in range(number):
        name, least, cores = draw.choice(kinds)
        memory = min(12_000, least * draw.paretovariate(2.2))
        wall = min(3000, 15 * draw.paretovariate(1.6))
        yield _call(draw, name, memory, cores * draw.uniform(0.6, 1.0), wall)


def _phases(draw: random.Random, number: int) -> Iterator[Call]:
    """Many small ones prepare, fewer large ones process, a few huge ones gather (a workflow)."""
    for n in range(number):
        part = n / number
        if part < 0.6:
            yield _call(draw, "prepare", _normal(draw, 120, 0.3), 0.5, _normal(draw, 20, 0.5))
        elif part < 0.97:
            yield _call(draw, "process", _normal(draw, 1500, 0.35), 2.0, _normal(draw, 200, 0.4))
        else:
            yield _call(draw, "gather", _normal(draw, 7000, 0.2), 1.0, _normal(draw, 500, 0.2))


def _call(
    draw: random.Random,
    category: str,
    memory_mb: float,
    cores: float,
    wall_time: float,
    features: Mapping[str, float] | None = None,
) -> Call:
    return Call(
        category,
        max(MB, round(memory_mb * MB)),
        cores,
        max(0.1, wall_time),
        features or {},
        draw.choice(RAMPS),
    )


GENERATORS: dict[str, Callable[[random.Random, int], Iterator[Call]]] = {
    "uniform kinds": _uniform_kinds,
    "bimodal": _bimodal,
    "rare giants": _rare_giants,
    "by input": _by_input,
    "drift": _drift,
    "heavy tail": _heavy_tail,
    "phases": _phases,
}


def made(number: int, seed: int = 1) -> dict[str, list[Call]]:
    """Return one trace of each shape."""
    return {
        name: list(generate(random.Random(f"{seed} {name}"), number))
        for name, generate in GENERATORS.items()
    }
