"""Dask's graphs on a farm."""

from __future__ import annotations

import os

import pytest

import afarm
from tests.integrations.functions import where

dask = pytest.importorskip("dask")

pytestmark = pytest.mark.slow


def test_an_executor_is_a_scheduler_as_it_stands(executor: afarm.Executor) -> None:
    total = dask.delayed(sum)([dask.delayed(abs)(-n) for n in range(10)])
    assert total.compute(scheduler=executor) == 45


def test_a_scheduler_with_settings_runs_each_task_as_an_invocation(
    executor: afarm.Executor,
) -> None:
    from afarm.integrations.dask import scheduler

    get = scheduler(executor, memory="500 MiB", env={"WHO": "dask"})
    pids = dask.compute(*(dask.delayed(where)(n) for n in range(4)), scheduler=get)
    assert os.getpid() not in pids
    assert dask.delayed(os.getenv)("WHO").compute(scheduler=get) == "dask"


def test_an_exception_comes_back(executor: afarm.Executor) -> None:
    from afarm.integrations.dask import scheduler

    with pytest.raises(ZeroDivisionError):
        dask.delayed(divmod)(1, 0).compute(scheduler=scheduler(executor))
