"""What travels of the user's own modules is what imports lead to: no more, no less."""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afarm.environments import analyze
from tests.environments.made_up import Project

NUMBERS = itertools.count()

# How one module may import another; each is seen without running anything.
WAYS = (
    "import {name}\n",
    "from {name} import value\n",
    "def f{n}():\n  import {name}\n",
    "try:\n  import {name}\nexcept ImportError:\n  pass\n",
    "import importlib\nm{n} = importlib.import_module('{name}')\n",
    "class C{n}:\n  import {name}\n",
)

EDGES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from(WAYS)), max_size=14
)


def reachable(edges: list[tuple[int, int, str]]) -> set[int]:
    """Return what can be reached from the module 0."""
    found = {0}
    while True:
        more = {end for start, end, _ in edges if start in found} - found
        if not more:
            return found
        found |= more


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(EDGES)
def test_own_modules_travel_if_and_only_if_imports_lead_to_them(
    edges: list[tuple[int, int, str]],
) -> None:
    run = f"own_{next(NUMBERS)}"
    files = {f"{run}_{number}.py": "value = 1\n" for number in range(7)}
    for n, (start, end, way) in enumerate(edges):
        files[f"{run}_{start}.py"] += way.format(name=f"{run}_{end}", n=n)
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def f():\n  import {run}_0", scope)
    with tempfile.TemporaryDirectory() as folder:
        Project(Path(folder)).write(files)
        sys.path.insert(0, folder)
        try:
            found = analyze(scope["f"])
        finally:
            sys.path.remove(folder)

    assert {tree.name for tree in found.local} == {f"{run}_{n}.py" for n in reachable(edges)}
    assert found.missing == ()
