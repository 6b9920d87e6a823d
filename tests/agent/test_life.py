"""How an agent begins and ends: whatever happens, nothing of it is left on the node."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from afarm._wire import messages as m

from .driver import Driver


def tree_of(driver: Driver) -> list[psutil.Process]:
    agent = psutil.Process(driver.process.pid)
    return [agent, *agent.children(recursive=True)]


def wait_gone(processes: list[psutil.Process], patience: float = 5.0) -> None:
    _, alive = psutil.wait_procs(processes, timeout=patience)
    left = [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"still there after {patience} s: {left}"


def busy(driver: Driver) -> list[psutil.Process]:
    """Have an agent run something stubborn in both ways; return its tree."""

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                print("started", flush=True)
            time.sleep(1000)
        time.sleep(1000)

    runs = [driver.run(stubborn, group=n, reuse=bool(n)) for n in range(2)]
    driver.wait(lambda: all(driver.output(run) for run in runs))
    tree = tree_of(driver)
    assert len(tree) >= 8
    return tree


def test_the_first_bytes_are_the_magic_and_hello(start: Callable[..., Driver]) -> None:
    hello = start().wait_for(m.Hello)
    assert hello.version == m.PROTOCOL_VERSION
    assert hello.capacity.cores >= 0.01
    assert hello.capacity.memory > 1 << 28


def test_the_end_of_input_ends_everything(start: Callable[..., Driver], tmp_path: Path) -> None:
    driver = start()
    tree = busy(driver)
    driver.sock.close()
    wait_gone(tree)
    assert os.listdir(tmp_path / "agent0" / "sessions") == []


def test_stop_ends_everything_and_says_farewell(start: Callable[..., Driver]) -> None:
    driver = start()
    tree = busy(driver)
    driver.send(m.Stop(0))
    farewell = driver.wait_for(m.Farewell)
    assert farewell.forced == 0
    wait_gone(tree)


def test_sigterm_ends_everything_and_says_farewell(start: Callable[..., Driver]) -> None:
    driver = start()
    tree = busy(driver)
    driver.process.terminate()
    assert driver.wait_for(m.Farewell).forced == 1
    wait_gone(tree)


def test_an_agent_that_is_killed_takes_everything_along(start: Callable[..., Driver]) -> None:
    driver = start()
    tree = busy(driver)
    driver.process.kill()
    wait_gone(tree)


def test_a_farm_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.agent.driver import Driver\n"
        "from tests.agent.test_life import busy\n"
        "driver = Driver(pathlib.Path(sys.argv[2])); driver.in_place()\n"
        "print(*[p.pid for p in busy(driver)], flush=True)\n"
        "import time; time.sleep(1000)\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, root, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as farm:
        assert farm.stdout is not None
        tree = [psutil.Process(int(pid)) for pid in farm.stdout.readline().split()]
        assert len(tree) >= 8
        farm.kill()
        wait_gone(tree)


def test_silence_ends_everything(start: Callable[..., Driver]) -> None:
    driver = start(heartbeat=0.1, silence=2.5)
    driver.wait_for(m.EnvironmentState)
    tree = tree_of(driver)
    for token in range(10):  # for longer than that in all
        driver.drain(0.3)
        driver.send(m.Ping(token))
    driver.wait(lambda: len(list(driver.of(m.Pong))) == 10)
    assert "silent" in driver.wait_for(m.Farewell).reason
    wait_gone(tree)


def test_an_older_agent_of_the_same_farm_is_ended(
    start: Callable[..., Driver], tmp_path: Path
) -> None:
    older = start(tmp_path / "shared", farm="one")
    other = start(tmp_path / "shared", farm="another")
    tree = busy(older)
    newer = start(tmp_path / "shared", farm="one")
    newer.wait_for(m.Hello)
    wait_gone(tree)
    assert other.call(abs, -1).value == 1
    assert newer.call(abs, -2).value == 2


def test_the_folder_of_a_dead_agent_is_removed_by_the_next(
    start: Callable[..., Driver], tmp_path: Path
) -> None:
    first = start(tmp_path / "shared", farm="one")
    tree = busy(first)
    first.process.kill()
    wait_gone(tree)
    second = start(tmp_path / "shared", farm="two")
    second.wait_for(m.Hello)
    assert len(os.listdir(tmp_path / "shared" / "sessions")) == 1


def test_the_folder_of_another_hosts_agent_stays_while_it_is_locked(
    start: Callable[..., Driver], tmp_path: Path
) -> None:
    theirs = tmp_path / "shared" / "sessions" / "test-here-1"
    theirs.mkdir(parents=True)
    (theirs / "host").write_text("elsewhere:pid:[1]")
    with (theirs / "agent").open("w") as agent:
        fcntl.flock(agent, fcntl.LOCK_EX)
        agent.write("1 0")
        agent.flush()
        start(tmp_path / "shared").wait_for(m.Hello)
        assert theirs.exists()
    start(tmp_path / "shared", farm="later").wait_for(m.Hello)
    assert not theirs.exists()


def test_garbage_ends_the_agent_with_a_reason(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.wait_for(m.Hello)
    driver.sock.sendall(b"this is no frame at all, nor will it ever be")
    assert "cannot be understood" in driver.wait_for(m.Farewell).reason


def test_heartbeats_come_with_load_and_memory(start: Callable[..., Driver]) -> None:
    driver = start(heartbeat=0.05)
    driver.wait(lambda: len(list(driver.of(m.Heartbeat))) >= 3)
    beat = next(driver.of(m.Heartbeat))
    assert beat.available > 1 << 24


def test_an_environment_without_an_interpreter_says_so(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.send(m.Environment(9, '{"in_place": true, "executable": "/no/python", "path": []}'))
    state = driver.wait(
        lambda: next((s for s in driver.of(m.EnvironmentState) if s.environment == 9), None)
    )
    assert "/no/python" in state.problem
    result = driver.call(abs, -1, environment=9)
    assert result.outcome is m.Outcome.UNUSABLE
    assert "/no/python" in result.failure[1]


def test_an_idle_agent_is_small(start: Callable[..., Driver]) -> None:
    driver = start()
    driver.wait_for(m.EnvironmentState)
    assert psutil.Process(driver.process.pid).memory_info().rss < 25 << 20


@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
def test_results_wait_for_a_farm_that_does_not_read(
    start: Callable[..., Driver], size: int
) -> None:
    driver = start()
    driver.call(abs, -1)
    agent = psutil.Process(driver.process.pid)
    before = agent.memory_info().rss
    invocation = driver.run(lambda n: b"x" * n, size)
    time.sleep(0.3)  # in which the farm does not read; there is nothing to wait for
    assert agent.memory_info().rss - before < 12 << 20
    assert driver.result(invocation).value == b"x" * size
