"""Control groups of the kernel behind the watch, where this machine lets us make some."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afarm._monitor.cgroups import read_fields
from afarm._wire import messages as m
from afarm.resources import Resources, Source
from tests.agent import functions as do

from .driver import PATIENCE, Driver, Result

MIB = 1 << 20
LIMIT = Resources(cores=1, memory=64 * MIB)


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.005)


@pytest.fixture
def grouped(start: Callable[..., Driver]) -> Driver:
    """An agent whose calls are in control groups for memory and processes."""
    driver = start()
    tiers = str(driver.wait_for(m.Hello).description)
    if "group (memory)" not in tiers or "group (pids)" not in tiers:
        pytest.skip("no control groups can be made here")
    return driver


@pytest.fixture
def memory(grouped: Driver) -> Path:
    """The group for memory that its first slot has."""
    return Path(grouped.call(do.own_group, "memory").value)


class Watch:
    """The supervisor of the first slot, which can be kept from looking."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def watch(grouped: Driver, memory: Path) -> Iterator[Watch]:
    found = Watch(grouped.call(os.getppid).value)
    yield found
    found.go_on()


def test_a_call_is_in_a_group_of_its_slot_and_the_agent_is_not(
    grouped: Driver, memory: Path
) -> None:
    assert memory.name.startswith("slot-")
    assert memory.parent.name.startswith("afarm-test_here-")
    agent = Path(f"/proc/{grouped.process.pid}/cgroup").read_text()
    assert memory.parent.name not in agent.replace(memory.parent.name + "_agent", "")
    assert str(grouped.call(os.getppid).value) in (memory / "cgroup.procs").read_text().split()


def test_the_usage_says_that_a_group_stands_behind_it(grouped: Driver) -> None:
    assert grouped.call(do.nothing).ended.usage.sources & Source.GROUP


def test_the_kernel_prefers_a_worker_to_its_supervisor(grouped: Driver) -> None:
    own, parents = grouped.call(do.scores).value
    assert own == 1000
    assert parents < own


def unseen(driver: Driver, memory: Path, watch: Watch, run: int, go: Path) -> Result:
    """Let a call go on without a watch until the kernel has killed something of it."""
    driver.wait(lambda: b"ready" in driver.output(run))
    watch.stop()
    go.touch()
    wait(lambda: read_fields(f"{memory}/{do.KILLS}").get("oom_kill"))
    watch.go_on()
    return driver.result(run)


def test_the_kernel_ends_a_call_that_nobody_looks_at(
    grouped: Driver, memory: Path, watch: Watch, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    run = grouped.run(do.take_when_told, str(go), 512 * MIB, limits=LIMIT)
    result = unseen(grouped, memory, watch, run, go)
    assert result.outcome is m.Outcome.EXHAUSTED
    assert result.ended.resource == "memory"
    assert result.ended.usage.memory_resident < 256 * MIB


@pytest.mark.parametrize("reuse", [False, True])
def test_a_call_whose_child_the_kernel_ends_has_exhausted_its_memory(
    grouped: Driver, memory: Path, watch: Watch, tmp_path: Path, reuse: bool
) -> None:
    go = tmp_path / "go"
    run = grouped.run(do.child_takes_when_told, str(go), 512 * MIB, limits=LIMIT, reuse=reuse)
    result = unseen(grouped, memory, watch, run, go)
    assert result.outcome is m.Outcome.EXHAUSTED
    assert result.ended.resource == "memory"
    assert grouped.call(do.nothing).outcome is m.Outcome.RETURNED


def test_without_a_stated_limit_there_is_none(grouped: Driver, memory: Path) -> None:
    low, high = grouped.call(do.own_limit, limits=LIMIT).value, grouped.call(do.own_limit).value
    assert LIMIT.memory is not None
    assert 1.05 * LIMIT.memory < low < 4 * LIMIT.memory
    assert high is None or high > 1 << 40
    soft = grouped.call(do.own_limit, limits=LIMIT, soft=True).value
    assert soft == high


@pytest.mark.slow
def test_a_file_larger_than_the_limit_stays_in_the_page_cache(
    grouped: Driver, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(192):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
        # It is counted where it is read first.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    run = grouped.run(do.read_again_and_again, str(path), limits=LIMIT)
    taken = grouped.result(run).value
    # Pages that the kernel had taken back and had to read again, in each round.
    assert taken[-1] <= (192 * MIB >> 12) // 100, taken


def test_a_slot_that_can_have_no_spare_serves_on(grouped: Driver, tmp_path: Path) -> None:
    pids = Path(grouped.call(do.own_group, "pids").value)
    supervisor = grouped.call(os.getppid).value
    go = tmp_path / "go"
    run = grouped.run(do.wait_for, str(go))
    wait(lambda: (pids / "pids.current").read_text().strip() == "3")
    (pids / "pids.max").write_text("2")
    go.touch()
    grouped.result(run)
    assert [grouped.call(os.getppid).value for _ in range(3)] == [supervisor] * 3


def test_groups_go_with_the_agent(grouped: Driver, memory: Path) -> None:
    grouped.close()
    assert not memory.parent.exists()


def test_the_group_of_a_slot_goes_with_its_supervisor(grouped: Driver, memory: Path) -> None:
    os.kill(grouped.call(os.getppid).value, signal.SIGKILL)
    wait(lambda: not memory.exists())
    assert grouped.call(do.nothing).outcome is m.Outcome.RETURNED


def test_what_a_killed_agent_leaves_is_removed_by_the_next(
    grouped: Driver, memory: Path, start: Callable[..., Driver]
) -> None:
    grouped.process.kill()
    wait(lambda: not (memory / "cgroup.procs").read_text())
    grouped.process.wait()
    start().wait_for(m.Hello)
    assert not memory.parent.exists()


def test_all_calls_are_bounded_by_the_memory_that_was_stated(
    grouped: Driver, start: Callable[..., Driver]
) -> None:
    other = start(capacity=Resources(memory=512 * MIB))
    group = Path(other.call(do.own_group, "memory").value).parent
    names = [name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()]
    assert 512 * MIB < int((group / names[0]).read_text()) < 640 * MIB


def test_who_wants_no_groups_gets_none(start: Callable[..., Driver]) -> None:
    driver = start(environ={"AFARM_GROUPS": "0"})
    assert "group (" not in driver.wait_for(m.Hello).description
    assert not driver.call(do.nothing).ended.usage.sources & Source.GROUP
