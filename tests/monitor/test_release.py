"""Taking back the memory of what was killed."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from collections.abc import Iterator

import pytest

from afarm._monitor.proc import read_status
from afarm._monitor.release import release

pytestmark = pytest.mark.skipif(
    tuple(map(int, platform.release().split("-")[0].split(".")[:2])) < (5, 15),
    reason="Linux 5.15 has process_mrelease",
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_who_lives_keeps_its_memory(child: subprocess.Popen[bytes]) -> None:
    assert not release(child.pid)

    assert read_status(child.pid) is not None


def released_when_killed() -> bool:
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    os.kill(pid, signal.SIGKILL)
    try:
        return release(pid)
    finally:
        os.waitpid(pid, 0)


def test_the_memory_of_who_was_killed_is_given_back() -> None:
    # Who gets its turn at once, on another core, has given it back itself.
    assert any(released_when_killed() for _ in range(200))


def test_a_number_that_nobody_has_is_no_error() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

    assert not release(pid)
