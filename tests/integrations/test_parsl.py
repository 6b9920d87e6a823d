"""Parsl's apps on a farm."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.integrations.programs import run_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("parsl") is None, reason="parsl is not installed here"
    ),
]

# In a process of its own: Parsl leaves files open, and threads that end later.
PROGRAM = """
import os
import parsl
import afarm
from afarm.integrations.parsl import FarmExecutor

executor = FarmExecutor([afarm.LocalNode(cores=2)], progress=False)

@parsl.python_app
def where(n, parsl_resource_specification=None):
    import os
    return n, os.getpid()

@parsl.python_app
def first(pair):
    return pair[0]

@parsl.python_app
def nothing(parsl_resource_specification=None):
    return None

if __name__ == "__main__":
    with parsl.load(parsl.Config(executors=[executor], strategy="none")):
        needs = {"cores": 1, "memory": 500}
        asked = [where(n, parsl_resource_specification=needs) for n in range(4)]
        assert [first(one).result(30) for one in asked] == [0, 1, 2, 3]
        assert os.getpid() not in {one.result()[1] for one in asked}
        error = nothing(parsl_resource_specification={"bananas": 1}).exception(30)
        assert "Invalid Resource Specification" in str(error), error
    print("all well")
"""


def test_apps_run_as_invocations(tmp_path: Path) -> None:
    assert run_program(tmp_path, PROGRAM) == "all well\n"
