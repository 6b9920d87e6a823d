"""joblib's `Parallel`, and with it scikit-learn's ``n_jobs``, on a farm.

    from afarm.integrations.joblib import register

    register()
    with afarm.Executor(["lab1", "lab2"]) as executor:
        with joblib.parallel_config("afarm", executor=executor):
            GridSearchCV(...).fit(x, y)

Each batch of joblib's is one invocation; its category is the function that it calls.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

import joblib
from joblib.parallel import ParallelBackendBase

from ..executor import Executor, ExecutorView
from ..payload import category_of

NAME = "afarm"

# Views that are kept, one for each function that batches call.
_MOST_VIEWS = 64


def register() -> None:
    """Make ``"afarm"`` a backend of joblib's."""
    joblib.register_parallel_backend(NAME, FarmBackend)


class FarmBackend(ParallelBackendBase):  # type: ignore[misc]  # untyped base
    """Runs joblib's batches as invocations.

    Args:
        executor: Runs them; with `Executor.options`, as they say.
        nodes: Without an executor: as for `afarm.Farm`, opened for the first batch.
        backend: joblib's own.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(
        self,
        executor: Executor | ExecutorView | None = None,
        nodes: Any = None,
        **backend: Any,
    ) -> None:
        super().__init__(**backend)
        self._given = executor
        self._nodes = nodes
        self._own: Executor | None = None
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._views: dict[str, ExecutorView] = {}
        self._viewed: Executor | ExecutorView | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A batch names its backend for what it may call `Parallel` for itself. There, on a
        # node, is no farm: such calls run one after the other.
        from joblib._parallel_backends import SequentialBackend

        return SequentialBackend, ()

    @property
    def _executor(self) -> Executor | ExecutorView:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = Executor(self._nodes)
        return self._own

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at once: no more than the farm has slots."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs < 0:
            return max(1, self._executor.slots + 1 + (n_jobs if n_jobs is not None else -1))
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None
    ) -> concurrent.futures.Future[Any]:
        """Run a batch."""
        future = self._view(_category(func)).submit(_call, func)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _view(self, category: str) -> ExecutorView:
        """Return the view of a category, one for all of its batches: it is analysed once."""
        executor = self._executor
        view = self._views.get(category)
        if view is None or self._viewed is not executor:
            if self._viewed is not executor or len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._viewed = executor
            view = self._views[category] = executor.options(category=category)
        return view

    apply_async = submit  # what it was called before joblib 1.5

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        """Return what a batch returned, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the batches that run; their process trees are killed."""
        for future in list(self._futures):
            future.cancel()
        if not ensure_ready:
            self.terminate()

    def terminate(self) -> None:
        """Close the farm that was opened here, if one was."""
        own, self._own = self._own, None
        if own is not None:
            own.shutdown()


def _make_call() -> Callable[[Callable[[], Any]], Any]:
    """Return the function that runs a batch: made here, so that it travels by value."""

    def call(batch: Callable[[], Any]) -> Any:
        return batch()

    return call


_call = _make_call()


def _category(batch: Any) -> str:
    """Return the category of the first function of a batch."""
    items = getattr(batch, "items", None)
    return category_of(items[0][0] if items else batch)
