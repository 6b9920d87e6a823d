"""Calls that touch no page are looked at less closely, and nothing is missed by that."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from afarm._agent import page
from afarm._agent.watch import CallWatch
from afarm._monitor import tree, tree_watch
from afarm._monitor.proc import Observed, read_stat
from afarm._monitor.tree import ProcessTree
from afarm._monitor.tree_watch import TreeWatch
from afarm.resources import Resources

MIB = 1 << 20
SIZE = 32 * MIB


class Child:
    """A process that does one thing after the other, as it is told."""

    def __init__(self) -> None:
        theirs, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                os.close(self._orders)
                self._serve(theirs, answers)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(answers)

    def _serve(self, orders: int, answers: int) -> None:
        kept: list[object] = []
        while order := os.read(orders, 1):
            if order == b"m":
                memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                for at in range(0, SIZE, mmap.PAGESIZE):
                    memory[at] = 1
                kept.append(memory)
            elif order == b"b":
                end = time.process_time() + 0.05
                while time.process_time() < end:
                    pass
            elif order == b"t":
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            elif order == b"f" and os.fork() == 0:
                kept.append(bytearray(SIZE))
                os.write(answers, b".")
                signal.pause()
            if order != b"f":
                os.write(answers, b".")

    def let(self, order: str) -> None:
        """Let it do something, and wait until it has."""
        os.write(self._orders, order.encode())
        assert os.read(self._answers, 1) == b"."
        while (stat := read_stat(self.pid)) is not None and stat.state == "R":
            pass

    def end(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._orders)
        os.close(self._answers)


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    # The first of each touches pages that the later ones do not: those of its code.
    made.let("b")
    made.let("b")
    yield made
    made.end()


@pytest.fixture
def observed(child: Child) -> Iterator[Observed]:
    made = Observed(child.pid)
    made.quietness()
    yield made
    made.close()


def test_who_waits_is_quiet_and_idle(observed: Observed) -> None:
    assert observed.quietness() == (True, True, 0, True)


def test_who_computes_is_quiet_but_not_idle(child: Child, observed: Observed) -> None:
    child.let("b")

    assert not observed.quietness().idle
    assert observed.quietness() == (True, True, 0, True)


@pytest.mark.parametrize("order", ["m", "t", "f"], ids=["memory", "a thread", "a child"])
def test_who_takes_or_starts_something_is_not_quiet(
    child: Child, observed: Observed, order: str
) -> None:
    child.let(order)

    assert not observed.quietness().quiet


def test_who_is_gone_is_not_quiet(observed: Observed) -> None:
    observed.pid = 0
    observed.close()

    assert not observed.quietness().quiet


def test_a_tree_is_quiet_when_each_process_is_and_all_are_known(child: Child) -> None:
    watch = TreeWatch(child.pid, ProcessTree(os.getpid()))
    child.let("f")
    watch.quietness()
    assert not watch.quietness()[0], "a child that no look has seen"

    watch.look()
    watch.quietness()
    assert watch.quietness()[0]

    child.let("m")
    assert not watch.quietness()[0]
    watch.close()


def let_processes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it look as if processes came all the time on this machine."""
    numbers = count()
    for module in (tree, tree_watch):
        monkeypatch.setattr(module, "newest", lambda: b"%d" % next(numbers))


def test_a_process_with_threads_is_quiet_unless_it_has_a_child_that_no_look_has_seen(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_processes_come(monkeypatch)
    watch = TreeWatch(child.pid, ProcessTree(os.getpid()))
    child.let("t")
    watch.quietness()
    watch.look()
    assert watch.quietness()[0]

    child.let("f")
    watch.quietness()
    assert not watch.quietness()[0]
    watch.look()
    watch.quietness()  # the first of the child
    assert watch.quietness()[0]
    watch.close()


def test_a_process_with_threads_is_not_searched_while_no_process_comes(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_watch, "newest", lambda: b"7")
    searched = ProcessTree(os.getpid())
    watch = TreeWatch(child.pid, searched)
    child.let("t")
    watch.quietness()
    watch.look()
    monkeypatch.setattr(searched, "descendants", None)

    assert watch.quietness()[0]
    watch.close()


@pytest.fixture
def watch(child: Child, tmp_path: Path) -> Iterator[CallWatch]:
    shared = page.Page(page.create())
    slot = shared.slot(1)
    slot[page.BEGUN] = 1
    slot[page.STARTED] = time.monotonic_ns()
    made = CallWatch(child.pid, slot, str(tmp_path), ProcessTree(os.getpid()))
    made.begin(Resources(memory=1 << 30), 0, 0.0)
    yield made
    made.close()


def test_a_quiet_call_is_looked_at_closely_once_a_second(watch: CallWatch) -> None:
    closely = 0
    now = 0.0
    while now < 10.0:
        closely += watch.look(now) is not None
        now = watch.due

    assert 9 <= closely <= 14
    assert watch.due - 0.25 <= now <= watch.due


def test_a_rise_after_a_long_quiet_is_seen_by_the_next_look(watch: CallWatch, child: Child) -> None:
    now = 0.0
    while now < 3.0 or watch.look(now) is not None:
        watch.look(now)
        now = watch.due

    child.let("m")
    usage = watch.look(now)

    assert usage is not None
    assert usage.memory_low >= SIZE
    assert watch.due - now <= 0.05


def test_the_end_of_the_wall_time_is_seen_though_nothing_moves(watch: CallWatch) -> None:
    watch.look(0.0)
    watch.begin(Resources(wall_time=0.001), 0, 0.0)
    watch.look(0.0)
    while watch._elapsed() <= 0.001:
        pass

    usage = watch.look(0.01)

    assert usage is not None
    assert usage.wall_time > 0.001
