"""What psutil tells of calls, held against what the kernel tells where it is Linux."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest

from afarm import monitor
from afarm.resources import Usage
from tests.polling import functions as do

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MIB = 1 << 20

# What the interpreters of a call and of its child have of mapped files.
FILES = 40 * MIB


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (do.take, (300, 0.5)),
        (do.take_in_subprocesses, (1, 200, 0.5)),
        (do.burn_in_subprocess, (0.5,)),
    ],
)
def test_both_say_the_same(
    monkeypatch: pytest.MonkeyPatch, fn: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    def measure(*, polled: bool) -> Usage:
        monkeypatch.setattr(monitor, "_polls", lambda: polled)
        return monitor.run_sync(fn, *args)[1]

    kernel, psutil = measure(polled=False), measure(polled=True)
    # On Linux the mark of who has started a process is its own first: no call is known to have
    # stayed below that.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert psutil.memory <= max(kernel.memory + FILES, inherited)
    assert psutil.memory >= kernel.memory_low - 2 * MIB
    assert psutil.memory_low <= kernel.memory + FILES
    assert abs(kernel.cpu_time - psutil.cpu_time) <= 0.25
    assert (kernel.processes, kernel.exit) == (psutil.processes, psutil.exit)
