"""How long does it take from ``import afarm`` to the first result?

A fresh interpreter each time: importing, opening the farm, running one call, closing. Over
SSH to a real OpenSSH server on loopback, whose node has the code of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .figures import Figure
from .peers.server import Server
from .question import CannotMeasure, aim, median_of

IMPORT = "import afarm"
LOCAL = "afarm, local"
SSH = "SSH: afarm"
POOL = "ProcessPoolExecutor"
BARE = "agent, to a bare node"

_FIRST_RESULT = """
import asyncio, json, sys, time
began = time.perf_counter()
import afarm
imported = time.perf_counter()
sys.path.insert(0, {root!r})

async def main():
    node = {node}
    async with afarm.Farm([node], progress=False) as farm:
        opened = time.perf_counter()
        assert await farm.submit(abs, -1) == 1
        return opened, time.perf_counter()

opened, answered = asyncio.run(main())
closed = time.perf_counter()
print(json.dumps([imported - began, opened - imported, answered - began, closed - answered]))
"""

_OPEN_ONLY = """
import asyncio, afarm

async def main():
    async with afarm.Farm([{node}], progress=False):
        pass

asyncio.run(main())
"""

_POOL = """
import json, time
began = time.perf_counter()
from concurrent.futures import ProcessPoolExecutor
imported = time.perf_counter()
with ProcessPoolExecutor(2) as pool:
    opened = time.perf_counter()
    assert pool.submit(abs, -1).result() == 1
    answered = time.perf_counter()
closed = time.perf_counter()
print(json.dumps([imported - began, opened - imported, answered - began, closed - answered]))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return what is started."""
    return [IMPORT, LOCAL, SSH, POOL, BARE]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Start one of them once."""
    if subject == IMPORT:
        return _measure_import()
    if subject == BARE:
        return _measure_bytes()
    if subject == POOL:
        return _first_result(subject, _POOL)
    if subject == LOCAL:
        return _first_result(subject, _FIRST_RESULT.format(root=".", node="afarm.LocalNode()"))
    server = Server()
    server.start()
    try:
        node = f"afarm.SSHNode({server.alias!r}, config={str(server.config)!r})"
        return _first_result(subject, _FIRST_RESULT.format(root=".", node=node))
    finally:
        server.stop()


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise CannotMeasure(f"failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def _first_result(subject: str, program: str) -> list[Figure]:
    imported, opened, answered, closed = json.loads(_run(program).splitlines()[-1])
    return [
        Figure(subject, "import", "s", (imported,)),
        Figure(subject, "open", "s", (opened,)),
        Figure(subject, "import to first result", "s", (answered,)),
        Figure(subject, "close", "s", (closed,)),
    ]


def _measure_import() -> list[Figure]:
    """Return what importing takes, the interpreter's own start left out."""
    began = time.perf_counter()
    _run("pass")
    bare = time.perf_counter() - began
    began = time.perf_counter()
    _run("import afarm")
    return [Figure(IMPORT, "import", "s", (time.perf_counter() - began - bare,))]


def _measure_bytes() -> list[Figure]:
    """Return how many bytes a node is sent before its first call: the agent, all of it."""
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder) / "sent"
        # The command's arguments follow; what is sent to it passes through a file.
        node = f"afarm.CommandNode(['sh', '-c', 'tee {sent} | \"$@\"', 'sh'], name='bare')"
        _run(_OPEN_ONLY.format(node=node))
        return [Figure(BARE, "bytes on the wire", "B", (float(sent.stat().st_size),))]


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for name, most in ((LOCAL, 0.4), (SSH, 1.2)):
        value = median_of(figures, name, "import to first result")
        if value is not None:
            lines.append(aim(f"{name}, first result", value, most, at_most=True, unit=" s"))
    return lines
