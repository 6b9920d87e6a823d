"""Parsl with its high-throughput executor, monitoring off."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import WORKERS, Peer, Wait


class ParslPeer(Peer):
    """One block of two workers on this machine."""

    def __init__(self) -> None:
        self._apps: dict[Callable[..., Any], Any] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._kernel: Any = None

    def open(self) -> None:
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        # It starts its own scripts by name, from a virtual environment that need not be active.
        here = Path(sys.executable).parent
        os.environ["PATH"] = f"{here}{os.pathsep}{os.environ.get('PATH', '')}"
        os.environ["PYTHONPATH"] = os.getcwd()
        self._folder = tempfile.TemporaryDirectory(prefix="afarm-parsl-")
        executor = HighThroughputExecutor(
            label="two",
            max_workers_per_node=WORKERS,
            address="127.0.0.1",
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        config = Config(executors=[executor], run_dir=self._folder.name, strategy="none", retries=0)
        self._kernel = parsl.load(config)
        self.call(abs, 1)

    def close(self) -> None:
        import parsl

        self._kernel.cleanup()
        parsl.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        import parsl

        if fn not in self._apps:
            self._apps[fn] = parsl.python_app(fn)
        wait: Wait = self._apps[fn](*args).result
        return wait
