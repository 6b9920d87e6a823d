"""How long until a function's packages are found, and until its first call returns on a bare node?

For functions that use one package each: what finding out takes and what travels; then, from
`submit` to the first result, on a host of `tests/testbed.py` that has nothing but a Python: with
its cache empty, with its cache warm (a new connection), and for a second function that needs
one small distribution more. Over links as fast as this machine is, and shaped. Needs root and
Linux. What is packed here, which happens once, is packed before.

The floor is what is left without any of this: the same bytes copied by ``ssh``, unpacked by ``tar``
and imported, one after the other. Beside it, the same versions installed on the host by ``pip`` and
by ``uv pip``, from wheels that lie here: what counts is written in `installers`.
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
from .installers import INSTALLERS, bring, fetch, first_import
from .question import CannotMeasure, aim, median_of

if TYPE_CHECKING:
    from afarm.environments import Environment

# What each function imports.
STANDARD_LIBRARY = "standard library"
PACKAGES = {
    STANDARD_LIBRARY: "json",
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
    """There is nothing to choose: ``--only`` takes a package, a link, ``analysis``, ``pip``."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return what is measured: each package's analysis, and each over each link."""
    found = [f"{package}, {ANALYSIS}" for package in PACKAGES]
    for link in LINKS:
        for package in PACKAGES:
            found.append(f"{package}, {link}")
            if package != STANDARD_LIBRARY:
                found += [f"{package}, {link}, {installer}" for installer in INSTALLERS]
    return found


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Find out what a function needs, or bring it to a host."""
    package, where, *installer = subject.split(", ")
    module = PACKAGES[package]
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise CannotMeasure(f"{package} is not installed here")
    with tempfile.TemporaryDirectory(prefix="afarm-bench-") as cache:
        os.environ["AFARM_CACHE"] = cache
        if where == ANALYSIS:
            return _measure_analysis(subject, module)
        if installer:
            return _measure_installer(subject, module, LINKS[where], *installer)
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


def _measure_installer(subject: str, module: str, rate: str, installer: str) -> list[Figure]:
    from afarm.environments import analyze

    requirements = analyze(function(module)).requirements()
    fetch(requirements)
    with hosts(_TESTBED, 1, "--pyenv") as bed:
        bring(installer, bed, bare_python())
        if rate:
            bed.run("shape", "h1", ROUND_TRIP, rate)
        cold, warm, alone = first_import(installer, bed, bare_python(), requirements, module)
    return [
        Figure(subject, "cold", "s", (cold,)),
        Figure(subject, "warm", "s", (warm,)),
        Figure(subject, "importing alone", "s", (alone,)),
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
            bed.call("h1", "cat > bundles", stdin=cat.stdout)
        bed.call("h1", "mkdir floor && tar -x -i -f bundles -C floor")
    copied = time.perf_counter() - began
    began = time.perf_counter()
    bed.call(
        "h1", f'{bare_python()} -I -c "import sys; sys.path.append(\'floor/site-packages\'); '
        f'import {module}"'
    )  # fmt: skip
    return copied, time.perf_counter() - began


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
            for installer in INSTALLERS:
                theirs = median_of(figures, f"{subject}, {installer}", "cold")
                if theirs is not None:
                    name = f"{subject}, cold by {installer}"
                    lines.append(aim(name, cold / theirs, 1.0, at_most=True))
    return lines
