"""Whatever a call does to its process, the node and the calls beside it are undisturbed."""

from __future__ import annotations

import ctypes
import gc
import json
import locale
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from afarm._wire.messages import (
    Environment,
    EnvironmentState,
    Kill,
    KillReason,
    Outcome,
    Output,
    Reading,
)
from afarm.resources import Resources

from .driver import Driver

REUSE = pytest.mark.parametrize("reuse", [False, True], ids=["fork", "reuse"])


def gone(pids: list[int]) -> bool:
    """Whether none of these processes is alive."""
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


def wait_until(condition: Callable[[], bool], patience: float = 5.0) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)


@REUSE
def test_printing_200_mb_harms_nobody(driver: Driver, reuse: bool) -> None:
    def shout():
        for _ in range(200):
            sys.stdout.buffer.write(b"x" * (1 << 20))
        print("end", file=sys.stderr)
        return "done"

    invocation = driver.run(shout, reuse=reuse)
    assert driver.result(invocation).value == "done"
    passed = len(driver.output(invocation))
    dropped = sum(o.dropped for o in driver.of(Output) if o.invocation == invocation)
    assert passed <= 256 << 10
    # What is dropped is counted over both streams.
    assert passed + len(driver.output(invocation, 2)) + dropped == (200 << 20) + 4


@REUSE
def test_output_comes_before_the_end_and_belongs_to_its_call(driver: Driver, reuse: bool) -> None:
    def speak(i):
        if i % 3 == 0:
            print(f"call {i}")
        elif i % 3 == 1:
            ctypes.CDLL(None).puts(f"call {i}".encode())  # C's own buffer
        else:
            subprocess.run(["echo", "call", str(i)], check=True)

    first = driver.run(speak, 0, group=60, reuse=reuse)
    calls = [first] + [driver.run(speak, i, group=61 + i, reuse=reuse) for i in range(1, 12)]
    for i, invocation in enumerate(calls):
        driver.result(invocation)
        assert driver.output(invocation) == f"call {i}\n".encode()


def test_a_print_is_seen_while_the_call_runs(driver: Driver) -> None:
    def speak():
        print("hello")
        time.sleep(30)

    invocation = driver.run(speak)
    driver.wait(lambda: driver.output(invocation) == b"hello\n", 5)
    driver.send(Kill(invocation, 1, KillReason.CANCELLED))
    assert driver.result(invocation).ended.output == b"hello\n"


@REUSE
def test_closing_the_standard_streams_is_survived(driver: Driver, reuse: bool) -> None:
    def close():
        for descriptor in range(3):
            os.close(descriptor)
        return "still here"

    assert driver.call(close, reuse=reuse).value == "still here"

    def speak():
        print("audible")
        return sys.stdin.read()

    invocation = driver.run(speak, reuse=reuse)
    assert driver.result(invocation).value == ""
    assert driver.output(invocation) == b"audible\n"


@REUSE
def test_closing_every_descriptor_costs_only_the_call(driver: Driver, reuse: bool) -> None:
    result = driver.call(lambda: os.closerange(0, 4096), reuse=reuse)
    assert result.outcome is Outcome.CRASHED
    assert driver.call(abs, -1, reuse=reuse).value == 1


@REUSE
def test_processes_that_are_left_are_gone_when_the_call_has_ended(
    driver: Driver, reuse: bool, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"

    def daemon(path):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for _ in range(3):
                if os.fork() == 0:
                    break
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(1000)
        lines = 0
        while lines < 3:
            with open(path) as file:
                lines = len(file.readlines())
            time.sleep(0.01)

    pids.touch()
    driver.call(daemon, str(pids), reuse=reuse)
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) >= 3
    assert gone(left)


@REUSE
def test_orphans_of_a_call_are_gone_too(driver: Driver, reuse: bool, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def orphan(path):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os.setsid()
                with open(path, "w") as file:
                    file.write(str(os.getpid()))
                time.sleep(1000)
            os._exit(0)
        os.waitpid(child, 0)
        while not os.path.exists(path) or not open(path).read():  # noqa: SIM115
            time.sleep(0.01)

    driver.call(orphan, str(pids), reuse=reuse)
    assert gone([int(pids.read_text())])


@REUSE
def test_a_killed_call_takes_its_children_along(
    driver: Driver, reuse: bool, tmp_path: Path
) -> None:
    path = tmp_path / "pid"

    def start(path):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open(path + ".new", "w") as file:
            file.write(str(child.pid))
        os.rename(path + ".new", path)
        time.sleep(1000)

    invocation = driver.run(start, str(path), reuse=reuse)
    wait_until(path.exists)
    driver.send(Kill(invocation, 1, KillReason.EVICTED))
    assert driver.result(invocation).outcome is Outcome.KILLED
    assert gone([int(path.read_text())])


def test_threads_that_are_left_replace_the_worker(driver: Driver) -> None:
    def start():
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return os.getpid()

    first = driver.call(start, reuse=True, group=70).value
    assert driver.call(os.getpid, reuse=True, group=70).value != first


def test_a_reused_worker_is_kept_while_it_is_clean(driver: Driver) -> None:
    pids = {driver.call(os.getpid, reuse=True).value for _ in range(10)}
    assert len(pids) == 1


def test_what_a_call_changes_is_put_right_for_the_next(driver: Driver) -> None:
    def disturb():
        os.environ["DISTURBED"] = "1"
        del os.environ["PATH"]
        os.umask(0o777)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
        sys.path.insert(0, "/nowhere")
        sys.stdout = None
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.chdir("/")
        random.seed(0)
        np.random.seed(0)

    def look():
        mask = os.umask(0)
        os.umask(mask)
        print("audible")
        return (
            "DISTURBED" in os.environ,
            "PATH" in os.environ,
            mask,
            signal.getsignal(signal.SIGUSR1),
            signal.getsignal(signal.SIGINT),
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            locale.setlocale(locale.LC_ALL),
            "/nowhere" in sys.path,
            os.listdir(),
            os.getcwd() != "/",
        )

    before = driver.call(look, reuse=True).value
    driver.call(disturb, reuse=True)
    invocation = driver.run(look, reuse=True)
    assert driver.result(invocation).value == before
    assert driver.output(invocation) == b"audible\n"
    assert before[8:] == ([], True)


@pytest.mark.slow
@REUSE
def test_random_numbers_never_repeat(start: Callable[..., Driver], reuse: bool) -> None:
    driver = start(preload=["numpy"])

    def draw(reseed):
        if reseed:
            random.seed(1)
            np.random.seed(1)
        numbers = (random.random(), np.random.random())
        return (0, 0) if reseed else numbers

    function = driver.function(draw)
    count = 1000 if reuse else 200
    runs = [driver.run(function, False, group=80, reuse=reuse)]
    for i in range(2 * count if reuse else count):
        invocation = driver.run(function, reuse and i % 2 == 0, group=80 + i, reuse=reuse)
        if not (reuse and i % 2 == 0):
            runs.append(invocation)
        driver.result(invocation)
    drawn = [driver.result(each).value for each in runs]
    assert len({a for a, _ in drawn}) == len(drawn)
    assert len({b for _, b in drawn}) == len(drawn)


@REUSE
def test_every_call_starts_in_an_empty_folder_that_is_removed(driver: Driver, reuse: bool) -> None:
    def leave():
        os.makedirs("a/b")
        for i in range(5):
            with open(f"a/b/{i}", "wb") as file:
                file.write(b"x" * 100_000)
        os.chmod("a/b", 0o000)
        return os.getcwd(), os.listdir()

    result = driver.call(leave, reuse=reuse)
    folder, _ = result.value
    assert 500_000 <= result.ended.usage.disk <= 600_000
    second, content = driver.call(lambda: (os.getcwd(), os.listdir()), reuse=reuse).value
    assert content == []
    if second != folder:
        assert not os.path.exists(folder)


# --- limits


@REUSE
def test_a_memory_limit_is_enforced_while_the_call_runs(driver: Driver, reuse: bool) -> None:
    def grow():
        kept = []
        while True:
            kept.append(bytearray(b"x") * (1 << 20))
            time.sleep(0.001)

    result = driver.call(grow, limits=Resources(memory=100 << 20), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "memory")
    assert 100 << 20 < result.ended.usage.memory < 200 << 20


@REUSE
def test_a_short_breach_of_a_memory_limit_is_found_out(driver: Driver, reuse: bool) -> None:
    def grow():
        return len(bytearray(b"x") * (150 << 20))

    result = driver.call(grow, limits=Resources(memory=100 << 20), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "memory")
    assert driver.call(grow, limits=Resources(memory=300 << 20), reuse=reuse).value == 150 << 20


@REUSE
def test_memory_of_a_child_counts(driver: Driver, reuse: bool) -> None:
    code = "x = bytearray(b'x') * (150 << 20); import time; time.sleep(0.4)"

    def start():
        subprocess.run([sys.executable, "-c", code], check=True)

    free = driver.call(start, reuse=reuse)
    assert free.value is None
    assert free.ended.usage.memory > 150 << 20
    assert free.ended.usage.processes == 2
    result = driver.call(start, limits=Resources(memory=100 << 20), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "memory")


@REUSE
def test_a_call_that_waits_is_ended_at_its_wall_time(driver: Driver, reuse: bool) -> None:
    before = time.monotonic()
    result = driver.call(time.sleep, 100, limits=Resources(wall_time=0.3), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "wall_time")
    assert 0.3 <= result.ended.usage.wall_time < 0.6
    assert time.monotonic() - before < 1.5


@REUSE
def test_processor_time_is_limited(driver: Driver, reuse: bool) -> None:
    def spin():
        while True:
            pass

    result = driver.call(spin, limits=Resources(cpu_time=0.2), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "cpu_time")
    assert driver.call(abs, -1, limits=Resources(cpu_time=0.2), reuse=reuse).value == 1


@REUSE
def test_disk_is_limited(driver: Driver, reuse: bool) -> None:
    def fill():
        with open("big", "wb") as file:
            file.write(b"x" * (20 << 20))
        time.sleep(30)

    result = driver.call(fill, limits=Resources(disk=10 << 20), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "disk")


@REUSE
def test_processes_are_limited(driver: Driver, reuse: bool) -> None:
    def breed():
        for _ in range(5):
            subprocess.Popen(["sleep", "100"])
        time.sleep(30)

    result = driver.call(breed, limits=Resources(processes=3), reuse=reuse)
    assert (result.outcome, result.ended.resource) == (Outcome.EXHAUSTED, "processes")


def test_readings_of_a_running_call_come(driver: Driver) -> None:
    invocation = driver.run(lambda: (bytearray(b"x") * (50 << 20), time.sleep(30)))
    driver.wait(lambda: any(r.invocation == invocation for r in driver.of(Reading)))
    reading = next(r for r in driver.of(Reading) if r.invocation == invocation)
    assert reading.usage.memory > 50 << 20
    driver.send(Kill(invocation, 1, KillReason.CANCELLED))
    driver.result(invocation)


def test_a_call_that_holds_the_interpreter_in_c_can_be_killed(driver: Driver) -> None:
    def hold():
        ctypes.PyDLL(None).sleep(100)  # PyDLL keeps the lock

    invocation = driver.run(hold)
    driver.drain(0.1)
    asked = time.monotonic()
    driver.send(Kill(invocation, 1, KillReason.CANCELLED))
    assert driver.result(invocation).outcome is Outcome.KILLED
    assert time.monotonic() - asked < 1


@REUSE
def test_a_call_that_kills_its_supervisor_crashes_alone(
    driver: Driver, reuse: bool, tmp_path: Path
) -> None:
    path = tmp_path / "pid"

    def revolt(path):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open(path, "w") as file:
            file.write(str(child.pid))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(100)

    neighbour = driver.run(lambda: time.sleep(0.5) or "unharmed", group=91)
    result = driver.call(revolt, str(path), group=90, reuse=reuse)
    assert result.outcome is Outcome.CRASHED
    assert gone([int(path.read_text())])
    assert driver.result(neighbour).value == "unharmed"
    assert driver.call(abs, -3, reuse=reuse).value == 3


def test_a_template_that_is_killed_is_replaced(start: Callable[..., Driver]) -> None:
    driver = start()

    def revolt():
        supervisor = psutil.Process(os.getppid())
        supervisor.parent().kill()
        time.sleep(100)

    assert driver.call(revolt).outcome is Outcome.CRASHED
    assert driver.call(abs, -3).value == 3


def test_multiprocessing_works_in_a_call(driver: Driver) -> None:
    def square():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    assert driver.call(square).value == [1, 2, 3]


def test_a_worker_that_keeps_memory_is_replaced(driver: Driver) -> None:
    def keep():
        sys.kept = bytearray(b"x") * (100 << 20)
        gc.collect()
        return os.getpid()

    pid = driver.call(keep, reuse=True).value
    assert driver.call(os.getpid, reuse=True).value != pid


def test_templates_with_threads_are_not_forked(
    start: Callable[..., Driver], tmp_path: Path
) -> None:
    (tmp_path / "restless.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    )
    driver = start()
    description = {
        "in_place": True, "executable": sys.executable, "path": [str(tmp_path), *sys.path],
        "preload": ["restless"],
    }  # fmt: skip
    driver.send(Environment(9, json.dumps(description)))
    state = driver.wait(
        lambda: next((s for s in driver.of(EnvironmentState) if s.environment == 9), None)
    )
    assert state.problem == ""
    assert "import for themselves" in state.notes
    assert driver.call(lambda: threading.active_count(), environment=9).value == 1


def test_idle_templates_make_room_for_others(start: Callable[..., Driver]) -> None:
    driver = start()
    for cores in range(1, 13):
        driver.call(abs, -1, limits=Resources(cores=cores))
    agent = psutil.Process(driver.process.pid)
    wait_until(lambda: len(agent.children()) <= 8)
    assert driver.call(abs, -1).value == 1


def test_a_template_that_does_not_come_up_fails_what_waits_for_it(
    start: Callable[..., Driver],
) -> None:
    driver = start()
    description = {"in_place": True, "executable": "/bin/false", "path": []}
    driver.send(Environment(9, json.dumps(description)))
    assert driver.call(abs, -1, environment=9).outcome is Outcome.UNUSABLE


@REUSE
def test_bytes_that_a_call_writes_into_our_socket_end_that_call_alone(
    driver: Driver, reuse: bool
) -> None:
    def scribble():
        import os
        import stat
        import struct
        import time

        for name in os.listdir("/proc/self/fd"):
            try:
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.write(int(name), struct.pack("<IHHQ", 10, 1, 0xAF42, 7) + bytes(10))
            except OSError:
                continue
        time.sleep(60)

    assert driver.call(scribble, reuse=reuse).outcome is Outcome.CRASHED
    assert driver.call(lambda: 42, reuse=reuse).value == 42
