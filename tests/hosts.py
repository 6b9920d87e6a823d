"""`testbed.py` from Python: hosts of its own for this run of the tests."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from afarm.transport.ssh import SSHNode
from tests import sshd

TOOL = Path(__file__).with_name("testbed.py")

# Makes what the testbed needs most, in namespaces that vanish with it.
_PROBE = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
ip link add probe type bridge
ip link add probe0 type veth peer name probe1
"""


@functools.cache
def unavailable() -> str:
    """Return why hosts cannot be made here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces with hosts in them need root on Linux"
    for tool in ("ip", "bridge", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"hosts need {tool} (Debian: iproute2, util-linux)"
    if reason := sshd.missing():
        return reason
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "sh", "-c", _PROBE],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if probe.returncode:
        return f"namespaces cannot be made here: {probe.stderr.strip().splitlines()[-1:]}"
    return ""


@dataclass
class Testbed:
    """A set of hosts ``h1``, ``h2``... that no other run uses.

    Attributes:
        number: Its ``TESTBED_ID``.
    """

    __test__ = False  # not a class of tests, whatever its name begins with

    number: int
    _claim: IO[str]

    @classmethod
    def claim(cls) -> Testbed:
        """Return a testbed of a number that nobody uses."""
        for number in range(100, 200):
            claim = open(f"/tmp/.afarm-tests-{number}.lock", "w")  # noqa: SIM115 - held open
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                bed = cls(number, claim)
                bed.down()  # what a run left that was killed
                return bed
            claim.close()
        raise AssertionError("a hundred runs of these tests at once")

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(f"/tmp/afarm-testbed-{self.number}")

    @property
    def config(self) -> Path:
        """The SSH configuration in which its hosts are known."""
        return self.folder / "ssh_config"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the tool, as ``run("cut", "h1")``."""
        done = subprocess.run(
            [sys.executable, TOOL, *arguments],
            env={**os.environ, "TESTBED_ID": str(self.number)},
            cwd=TOOL.parent,  # the tree one stands in is hidden from the hosts
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode and arguments[0] != "exec":
            raise AssertionError(f"testbed {' '.join(arguments)}: {done.stderr}")
        return done

    def up(self, count: int, *options: str) -> list[SSHNode]:
        """Start hosts up to this number, and return them as nodes."""
        self.run("up", str(count), *options)
        return [self.node(f"h{number}") for number in range(1, count + 1)]

    def node(self, host: str, **arguments: Any) -> SSHNode:
        """Return a host as a node."""
        return SSHNode(host, config=self.config, **arguments)

    def shell(self, host: str, script: str) -> str:
        """Run a script on a host as root, without SSH, and return what it prints."""
        done = self.run("exec", host, "/bin/sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def release(self) -> None:
        """Remove all hosts and give the number back."""
        self.down()
        self._claim.close()

    def down(self) -> None:
        """Stop and remove all hosts."""
        if self.folder.exists():
            self.run("down")
