"""What is seen from outside of the peaks of processes that a call has started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from afarm._monitor.proc import Observed
from afarm._monitor.tree import ProcessTree
from afarm._monitor.tree_watch import Baseline, TreeWatch

MIB = 1 << 20

PROGRAM = """
import mmap
def take(size):
    with mmap.mmap(-1, size << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        room[::mmap.PAGESIZE] = b"x" * len(range(0, len(room), mmap.PAGESIZE))
print(flush=True)
for size in iter(input, ""):
    take(int(size))
    print(flush=True)
"""


class Child:
    """A program that takes memory and gives it back, as it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"\n"

    def take(self, mebibytes: int) -> None:
        """Take so much, and give it back."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % mebibytes)
        self._process.stdin.flush()
        self._wait()

    def end(self) -> None:
        """End it."""
        self._process.communicate(b"\n")


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    yield made
    made.end()


@pytest.fixture
def watch(child: Child) -> Iterator[TreeWatch]:
    """Look at this process, as at a call's."""
    made = TreeWatch(os.getpid(), ProcessTree(os.getpid()))
    own = Observed(os.getpid())
    assert own.reset_mark()  # which earlier tests have raised
    status = own.read()
    assert status is not None
    own.close()
    made.begin(Baseline(status.resident, status.anonymous))
    assert made.look()
    yield made
    made.close()


def test_what_one_child_had_between_two_looks_is_certain(child: Child, watch: TreeWatch) -> None:
    assert watch.memory.low < 50 * MIB
    child.take(100)
    watch.look()
    assert 95 * MIB < watch.memory.low < 120 * MIB
    assert watch.memory.high >= watch.memory.low


def test_a_peak_counts_once_however_often_it_is_looked_at(child: Child, watch: TreeWatch) -> None:
    child.take(100)
    watch.look()
    low = watch.memory.low
    for _ in range(3):
        child.take(50)
        watch.look()
    assert watch.memory.low == low
