"""Hosts of their own for benchmarks: ``tests/testbed.py``, in namespaces on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .question import CannotMeasure

_TOOL = Path(__file__).parent.parent / "tests" / "testbed.py"


class Hosts:
    """The hosts ``h1``, ``h2``... of one testbed.

    Args:
        number: Which; not one that tests use by default.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def config(self) -> str:
        """The SSH configuration in which they are known."""
        return f"/tmp/afarm-testbed-{self.number}/ssh_config"

    @property
    def address(self) -> str:
        """This machine's own, as hosts reach it."""
        return f"10.77.{self.number}.254"

    def ssh(self, host: str, *words: str) -> list[str]:
        """Return the command that runs something on a host.

        Args:
            host: Its name, or ``root@`` and its name.
            words: A command line for its shell.
        """
        return ["ssh", "-F", self.config, host, *words]

    def call(self, host: str, command: str, stdin: Any = subprocess.DEVNULL) -> str:
        """Run a command line on a host by `ssh`, and return what it printed.

        Raises:
            CannotMeasure: If it fails.
        """
        done = subprocess.run(self.ssh(host, command), stdin=stdin, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip()[-200:]
            raise CannotMeasure(f"{command.split()[0]} failed on the host: {said}")
        return done.stdout

    def run(self, *words: str, check: bool = True) -> None:
        """Run a command of the tool.

        Raises:
            CannotMeasure: If it fails, unless ``check`` is false.
        """
        done = subprocess.run(
            ["/usr/bin/python3", str(_TOOL), *words],
            env={**os.environ, "TESTBED_ID": str(self.number)},
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise CannotMeasure(f"no test bed: {(done.stderr or done.stdout).strip()[-200:]}")


@contextmanager
def hosts(number: int, count: int, *options: str) -> Iterator[Hosts]:
    """Bring up hosts, and take them down afterwards.

    Raises:
        CannotMeasure: If that cannot be done here.
    """
    if os.getuid() != 0 or not sys.platform.startswith("linux") or not _TOOL.exists():
        raise CannotMeasure("needs root and network namespaces for hosts of its own")
    bed = Hosts(number)
    try:
        bed.run("up", str(count), *options)
        yield bed
    finally:
        bed.run("down", check=False)
