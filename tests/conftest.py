"""What tests of several layers need: real servers, real hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import afarm
from afarm.transport.ssh import SSHNode
from tests import sshd as server
from tests.hosts import Testbed, unavailable


@pytest.fixture
def start_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., server.Sshd]]:
    """A function that starts an OpenSSH server with given lines of configuration."""
    if reason := server.missing():
        pytest.skip(reason)
    started: list[server.Sshd] = []

    def start(*lines: str) -> server.Sshd:
        started.append(server.start(tmp_path_factory.mktemp("sshd"), *lines))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Sshd]:
    """One OpenSSH server on a loopback port, for all tests that only need one."""
    if reason := server.missing():
        pytest.skip(reason)
    started = server.start(tmp_path_factory.mktemp("sshd"), "MaxStartups 100", "MaxSessions 100")
    yield started
    started.stop()


@pytest.fixture
def ssh_node(sshd: server.Sshd, tmp_path: Path) -> SSHNode:
    """A node behind that server: this machine by way of SSH."""
    return SSHNode("sshd", config=sshd.config, scratch=str(tmp_path / "scratch"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[afarm.Executor]:
    """A node on which nothing but the standard library can be imported."""
    scratch = str(tmp_path_factory.mktemp("bare"))
    node = afarm.CommandNode(["/usr/bin/env", "-i"], scratch=scratch, cores=2)
    with afarm.Executor([node], progress=False) as executor:
        yield executor


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """Several hosts with separate file systems and networks; `Testbed.up` starts them."""
    if reason := unavailable():
        pytest.skip(reason)
    bed = Testbed.claim()
    yield bed
    bed.release()
