"""Dask's collections and graphs on a farm.

An `afarm.Executor` is a scheduler of Dask's as it stands:

    with afarm.Executor(["lab1", "lab2"]) as executor:
        collection.compute(scheduler=executor)

`scheduler` does the same with settings of one's own, and a category for each kind of task.
Results come back between dependent tasks: it is for graphs of calls, not for large tables.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any

from dask.local import get_async

from ..executor import Executor, ExecutorView


def scheduler(executor: Executor | ExecutorView, **settings: Any) -> Callable[..., Any]:
    """Return a scheduler for ``compute(scheduler=...)`` and `dask.config.set`.

    Args:
        executor: Runs the tasks.
        settings: Of `afarm.Farm.options`: memory, cores, memo...
    """
    view = executor.options(**settings) if settings else executor

    def submit(
        function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        return view.submit(function, *args, **kwargs)

    def get(graph: Mapping[Any, Any], keys: Any, **options: Any) -> Any:
        options.pop("num_workers", None)
        options.pop("pool", None)
        # One task is one invocation: each is measured and sized by itself.
        options.setdefault("chunksize", 1)
        return get_async(submit, view.slots, graph, keys, **options)

    return get
