"""What the meter finds out about the calls of its own process, one after the other."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from afarm._monitor.meter import Meter

MIB = 1 << 20


def in_child(work: Callable[[Meter], Any]) -> Any:
    """Return what is found in a process of its own, which has a meter."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = json.dumps(work(Meter(lambda descriptor: descriptor)))
            os.write(writer, found.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = file.read()
    os.waitpid(child, 0)
    return json.loads(found)


def touch(size: int) -> None:
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def rest(meter: Meter, times: int = 5) -> None:
    """Have calls that leave everything as it was, until the meter relies on that."""
    for _ in range(times):
        meter.begin(again=True)
        meter.finish(0.0)


@pytest.mark.parametrize("pause", [0, 1, 5])
def test_each_call_has_its_own_peak_also_after_calls_that_did_nothing(pause: int) -> None:
    def work(meter: Meter) -> list[tuple[int, int]]:
        found = []
        for size in (40, 0, 80, 0, 40):
            rest(meter, pause)
            meter.begin(again=True)
            if size:
                touch(size * MIB)
            usage = meter.finish(0.0).usage
            found.append((size * MIB, usage.memory_low))
        return found

    for size, measured in in_child(work):
        assert size <= measured + MIB
        assert measured <= size + 2 * MIB


def test_a_call_that_prints_is_told_from_those_that_do_not() -> None:
    def work(meter: Meter) -> list[bool]:
        with open(os.devnull, "wb", buffering=0) as null:
            found = []
            for prints in (False, False, False, True, False, True, False, False):
                meter.begin(again=True)
                if prints:
                    null.write(b"x")
                found.append(meter.finish(0.0).wrote)
            return found

    assert in_child(work) == [False, False, False, True, False, True, False, False]


def test_threads_that_are_left_show_after_calls_that_did_nothing() -> None:
    def work(meter: Meter) -> list[int]:
        rest(meter)
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        meter.begin(again=True)
        thread.start()
        during = meter.finish(0.0).status.threads
        done.set()
        thread.join()
        while len(os.listdir("/proc/self/task")) > 1:
            os.sched_yield()  # it has said that it is done, and is not gone yet
        meter.begin(again=True)
        return [during, meter.finish(0.0).status.threads]

    assert in_child(work) == [2, 1]


def test_a_status_that_has_not_changed_is_the_same_object() -> None:
    def work(meter: Meter) -> bool:
        rest(meter)
        texts = []
        for _ in range(2):
            meter.begin(again=True)
            texts.append(meter.finish(0.0).text)
        return texts[0] is texts[1]

    assert in_child(work)


def test_no_call_uses_more_cores_than_it_had_threads() -> None:
    def work(meter: Meter) -> float:
        meter.begin(again=True)
        # What loading a function takes is the call's too, and is not in its wall time.
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
        return meter.finish(0.001).usage.cores_peak

    assert 0.1 < in_child(work) <= 1.1
