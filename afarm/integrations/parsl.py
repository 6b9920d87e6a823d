"""A Parsl executor that runs apps on a farm: SSH nodes, with nothing installed there.

    parsl.load(parsl.Config(executors=[FarmExecutor(nodes=["lab1", "lab2"])]))

``parsl_resource_specification`` of an app sets ``cores``, ``memory`` and ``disk`` (MB, as Parsl has
them), ``gpus``, ``wall_time`` (s) and ``priority``; what it does not say is sized.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any

from parsl.executors.base import ParslExecutor
from parsl.executors.errors import InvalidResourceSpecification

from ..executor import Executor

_MB = 1_000_000
_UNITS = {"cores": 1, "memory": _MB, "disk": _MB, "gpus": 1, "wall_time": 1, "priority": 1}


class FarmExecutor(ParslExecutor):  # type: ignore[misc]  # untyped base
    """Runs Parsl's apps as invocations.

    Args:
        nodes: As for `afarm.Farm`.
        label: Parsl's name for it.
        farm_arguments: As for `afarm.Farm`.
    """

    def __init__(self, nodes: Any = None, label: str = "afarm", **farm_arguments: Any) -> None:
        super().__init__()
        self.label = label
        self._nodes = nodes
        self._arguments = farm_arguments
        self._executor: Executor | None = None

    def start(self) -> None:
        """Open the nodes."""
        self._executor = Executor(self._nodes, **self._arguments)

    def submit(
        self,
        func: Callable[..., Any],
        resource_specification: Mapping[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> concurrent.futures.Future[Any]:
        """Run an app.

        Raises:
            InvalidResourceSpecification: If it names a resource that is none of a farm's.
        """
        if self._executor is None:
            raise RuntimeError("this executor is not started: parsl.load() does that")
        unknown = set(resource_specification) - set(_UNITS)
        if unknown:
            raise InvalidResourceSpecification(unknown, f"a farm knows {', '.join(_UNITS)}")
        settings = {name: amount * _UNITS[name] for name, amount in resource_specification.items()}
        category = getattr(func, "__name__", None)
        return self._executor.options(category=category, **settings).submit(func, *args, **kwargs)

    def monitor_resources(self) -> bool:
        """Return that Parsl need not measure what a farm measures anyway."""
        return False

    def shutdown(self) -> None:
        """Wait for what was submitted, and close the farm."""
        super().shutdown()
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()
