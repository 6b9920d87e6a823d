"""Dask's graphs on a farm."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.integrations.programs import run_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("dask") is None, reason="dask is not installed here"
    ),
]

# In a process of its own: Dask changes how every exception is pickled.
PROGRAM = """
import os
import dask
import afarm
from afarm.integrations.dask import scheduler

def where(n):
    return os.getpid()

if __name__ == "__main__":
    with afarm.Executor([afarm.LocalNode(cores=2)], progress=False) as executor:
        total = dask.delayed(sum)([dask.delayed(abs)(-n) for n in range(10)])
        assert total.compute(scheduler=executor) == 45

        get = scheduler(executor, memory="500 MiB", env={"WHO": "dask"})
        pids = dask.compute(*(dask.delayed(where)(n) for n in range(4)), scheduler=get)
        assert os.getpid() not in pids
        assert dask.delayed(os.getenv)("WHO").compute(scheduler=get) == "dask"

        try:
            dask.delayed(divmod)(1, 0).compute(scheduler=get)
        except ZeroDivisionError:
            print("all well")
"""


def test_graphs_run_as_invocations(tmp_path: Path) -> None:
    assert run_program(tmp_path, PROGRAM) == "all well\n"
