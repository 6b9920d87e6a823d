"""How long until a function's packages are found, and until its first call returns on a bare node?

For functions that use one package each: what finding out takes and what travels; then, from
`submit` to the first result, on a host of `tests/testbed.py` that has nothing but a Python: with
its cache empty, with its cache warm (a new connection), and for a second function that needs
one small distribution more. Over links as fast as this machine is, and shaped. Needs root and
Linux. What is packed here, which happens once, is packed before.

The floor is what is left without any of this: the same bytes copied by ``ssh``, unpacked by ``tar``
and imported, one after the other. Installing from an index is not compared: the hosts reach none.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import Figure
from .hosts import Hosts, hosts
from .question import CannotMeasure, aim, median_of

if TYPE_CHECKING:
    from afarm.environments import Environment

# What each function imports.
PACKAGES = {
    "standard library": "json",
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn.linear_model",
    "matplotlib": "matplotlib.pyplot",
    "RDKit": "rdkit.Chem.Descriptors",
}

ANALYSIS = "analysis"
FAST = "this machine"
LINKS = {FAST: "", "100 Mbit/s": "100mbit", "20 Mbit/s": "20mbit"}
ROUND_TRIP = "5ms"
_TESTBED = 186


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose: ``--only`` takes a package, a link, or ``analysis``."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return what is measured: each package's analysis, and each over each link."""
    found = [f"{package}, {ANALYSIS}" for package in PACKAGES]
    return found + [f"{package}, {link}" for link in LINKS for package in PACKAGES]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Find out what a function needs, or bring it to a host."""
    package, _, where = subject.rpartition(", ")
    module = PACKAGES[package]
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise CannotMeasure(f"{package} is not installed here")
    with tempfile.TemporaryDirectory(prefix="afarm-bench-") as cache:
        os.environ["AFARM_CACHE"] = cache
        if where == ANALYSIS:
            return _measure_analysis(subject, module)
        return _measure_arrival(subject, module, LINKS[where])


def function(*modules: str) -> Callable[[], str]:
    """Return a function that imports some modules, and travels by value."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def f():\n    import {', '.join(modules)}\n    return {modules[0]}.__name__\n", scope)
    made: Callable[[], str] = scope["f"]
    return made


def _measure_analysis(subject: str, module: str) -> list[Figure]:
    from afarm.environments import Environment, analyze, deflate

    fn = function(module)
    began = time.perf_counter()
    dependencies = analyze(fn)
    first = time.perf_counter() - began
    began = time.perf_counter()
    analyze(fn)
    again = time.perf_counter() - began
    began = time.perf_counter()
    bundles = Environment.shipped(dependencies).bundles
    packed = time.perf_counter() - began
    deflated = [(bundle.size, deflate(bundle)) for bundle in bundles]
    files = sum(len(content.files) for content in dependencies.contents)
    return [
        Figure(subject, "first", "s", (first,)),
        Figure(subject, "again", "s", (again,)),
        Figure(subject, "packing, once", "s", (packed,)),
        Figure(subject, "distributions", "", (float(len(dependencies.distributions)),)),
        Figure(subject, "files", "", (float(files),)),
        Figure(subject, "bytes", "B", (float(sum(size for size, _ in deflated)),)),
        Figure(
            subject, "deflated", "B", (float(sum(z.size if z else s for s, z in deflated)),)
        ),
    ]  # fmt: skip


def _measure_arrival(subject: str, module: str, rate: str) -> list[Figure]:
    from afarm.environments import Environment, analyze

    fn, second = function(module), function(module, "packaging.version")
    environment = Environment.shipped(analyze(fn))
    Environment.shipped(analyze(second))
    with hosts(_TESTBED, 1, "--pyenv") as bed:
        if rate:
            bed.run("shape", "h1", ROUND_TRIP, rate)
        copied, imported = _floor(bed, environment, module)
        cold = asyncio.run(_first_result(bed, fn))
        warm = asyncio.run(_first_result(bed, fn))
        other = asyncio.run(_first_result(bed, second))
    return [
        Figure(subject, "cold", "s", (cold,)),
        Figure(subject, "floor", "s", (copied + imported,)),
        Figure(subject, "warm", "s", (warm,)),
        Figure(subject, "second function", "s", (other,)),
        Figure(subject, "importing alone", "s", (imported,)),
    ]


async def _first_result(bed: Hosts, fn: Callable[[], str]) -> float:
    """Return how long the first call of a new connection takes."""
    import afarm

    node = afarm.SSHNode("h1", config=bed.config, cores=2, python=bare_python())
    async with afarm.Farm([node], progress=False) as farm:
        began = time.perf_counter()
        await farm.submit(fn)
        return time.perf_counter() - began


def _floor(bed: Hosts, environment: Environment, module: str) -> tuple[float, float]:
    """Return how long copying and unpacking the bundles takes, and then importing from them."""
    began = time.perf_counter()
    if environment.bundles:
        with subprocess.Popen(
            ["cat", *(str(bundle.path) for bundle in environment.bundles)], stdout=subprocess.PIPE
        ) as cat:
            _on_host(bed, "cat > bundles", stdin=cat.stdout)
        _on_host(bed, "mkdir floor && tar -x -i -f bundles -C floor")
    copied = time.perf_counter() - began
    began = time.perf_counter()
    _on_host(
        bed, f'{bare_python()} -I -c "import sys; sys.path.append(\'floor/site-packages\'); '
        f'import {module}"'
    )  # fmt: skip
    return copied, time.perf_counter() - began


def _on_host(bed: Hosts, command: str, stdin: Any = subprocess.DEVNULL) -> None:
    done = subprocess.run(bed.ssh("h1", command), stdin=stdin, capture_output=True, text=True)
    if done.returncode:
        raise CannotMeasure(f"{command.split()[0]} failed on the host: {done.stderr[-200:]}")


def bare_python() -> str:
    """Return the interpreter outside of the virtual environment: hosts have it as well."""
    from afarm._agent.build import base_interpreter

    return str(Path(base_interpreter()).resolve())


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for metric, most in (("first", 0.5), ("again", 0.005)):
        value = median_of(figures, f"scikit-learn, {ANALYSIS}", metric)
        if value is not None:
            lines.append(aim(f"scikit-learn analysed, {metric}", value, most, at_most=True))
    for link in LINKS:
        for package in PACKAGES:
            subject = f"{package}, {link}"
            cold, floor = median_of(figures, subject, "cold"), median_of(figures, subject, "floor")
            warm = median_of(figures, subject, "warm")
            alone = median_of(figures, subject, "importing alone")
            if cold is None or floor is None or warm is None or alone is None:
                continue
            most = 1.5 if link == FAST else 1.0
            lines.append(aim(f"{subject}, cold by floor", cold / floor, most, at_most=True))
            lines.append(aim(f"{subject}, warm", warm, 0.5 + alone, at_most=True, unit=" s"))
    return lines
