"""The functions that are called. A module of its own, so that every peer can import it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any


def nothing() -> None:
    """Do nothing: what is left is what a call costs."""


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def length(data: Any) -> int:
    """Return how long an argument is, in bytes: the upload alone."""
    return int(data.nbytes if hasattr(data, "nbytes") else len(data))


def make_bytes(size: int) -> bytes:
    """Return that many bytes: the download alone."""
    return bytes(size)


def make_array(size: int) -> Any:
    """Return an array of that many bytes: the download alone."""
    import numpy as np

    return np.zeros(size // 8)


def die() -> None:
    """Die by SIGKILL, as at the hands of the kernel when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def neighbour(number: int) -> int:
    """Work for 20 ms and return the argument."""
    time.sleep(0.02)
    return number


def hold(path: str) -> None:
    """Wait until a file appears: occupies what it was given until then."""
    while not os.path.exists(path):
        time.sleep(0.05)


def sleep(seconds: float) -> None:
    """Sleep: something to kill."""
    time.sleep(seconds)


def import_afresh(module: str, folder: str = "") -> float:
    """Return how long a new interpreter takes to start and import a module, and end.

    Args:
        module: Which.
        folder: Where it is looked for first; empty: in the call's own environment.
    """
    first = f"sys.path.insert(0, {folder!r})" if folder else "pass"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import sys; {first}; import {module}"], check=True)
    return time.perf_counter() - began


def work_and_wait(cpu: float, wait: float) -> None:
    """Use the processor for so many seconds of CPU time, then wait for so many seconds."""
    began = time.process_time()
    while time.process_time() - began < cpu:
        sum(range(1000))
    time.sleep(wait)
