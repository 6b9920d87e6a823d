"""Ray on one machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from .base import WORKERS, Peer, Wait


class RayPeer(Peer):
    """A local Ray with two CPUs, no dashboard."""

    def __init__(self) -> None:
        self._remotes: dict[Callable[..., Any], Any] = {}

    def open(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        ray.init(
            num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        self.call_all(abs, range(WORKERS))

    def close(self) -> None:
        import ray

        ray.shutdown()

    def _remote(self, fn: Callable[..., Any]) -> Any:
        import ray

        if fn not in self._remotes:
            # A retry would hide what becomes of a call whose process was killed.
            self._remotes[fn] = ray.remote(max_retries=0)(_as_function(fn))
        return self._remotes[fn]

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        import ray

        reference = self._remote(fn).remote(*args)
        return lambda seconds: ray.get(reference, timeout=seconds)

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        import ray

        remote = self._remote(fn)
        results: list[Any] = ray.get([remote.remote(argument) for argument in arguments])
        return results


def _as_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a Python function: Ray takes no builtin."""
    return fn if hasattr(fn, "__code__") else lambda *args: fn(*args)
