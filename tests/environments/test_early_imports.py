"""Imports begin on a node while modules are still on their way there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import afarm
from afarm._agent.build import base_interpreter
from tests.environments.made_up import Install
from tests.farm.waiting import descendants, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Passes on what it reads, but more than so many bytes only when a file is there.
RELAY = """
import os, select, subprocess, sys, time
gate, most = sys.argv[1], int(sys.argv[2])
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE)
while select.select([0], [], []) and (data := os.read(0, 1 << 16)):
    while most < 0 and not os.path.exists(gate):
        time.sleep(0.005)
    most -= len(data)
    try:
        child.stdin.write(data)
        child.stdin.flush()
    except BrokenPipeError:
        break
child.communicate()
"""

# The agent, and what is to come before the rest, are less; the rest is more.
PASSES = 2 << 20

# It does not shrink.
REST = "".join(f"# {random.Random(number).randbytes(40).hex()}\n" for number in range(100_000))

BEGIN = """
import os
with open({notes!r}, "a") as file:
    file.write("began\\n")
"""


class Gate:
    """Holds up what follows the first `PASSES` bytes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        self.notes = folder / "notes"
        self.begin = BEGIN.format(notes=str(self.notes))

    def open(self) -> None:
        self.path.touch()

    @property
    def began(self) -> int:
        """How many imports have begun on the node."""
        return self.notes.read_text().count("began") if self.notes.exists() else 0

    async def wait_began(self) -> None:
        async with asyncio.timeout(20):
            while not self.began:
                await asyncio.sleep(0.01)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv("AFARM_CACHE", str(tmp_path / "here"))
    return Gate(tmp_path)


@pytest_asyncio.fixture
async def farm(tmp_path: Path, gate: Gate) -> AsyncIterator[afarm.Farm]:
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY)
    node = afarm.CommandNode(
        [sys.executable, str(relay), str(gate.path), str(PASSES), "/usr/bin/env", "-i"],
        python=base_interpreter(),
        scratch=str(tmp_path / "there"),
        cores=2,
        name="behind",
    )
    async with afarm.Farm([node], progress=False) as farm:
        yield farm
        gate.open()  # whatever a test has seen: what ends the agent comes through it


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


def forget_tracing(gate: Gate) -> None:
    """Imports of the trace, on this side, do not count."""
    gate.notes.unlink(missing_ok=True)


def processes(role: str) -> list[int]:
    """Return the processes on the node that have a role."""
    found = []
    for pid in descendants():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if role.encode() in words:
                found.append(pid)
    return found


async def submit_when_packed(farm: afarm.Farm, gate: Gate, function: Any) -> Any:
    """Submit a call whose function was packed, and traced, before."""
    from afarm.environments import Environment, analyze

    await asyncio.to_thread(lambda: Environment.shipped(analyze(function)))
    forget_tracing(gate)
    return farm.submit(function)


async def test_an_import_is_over_before_the_rest_is_there_and_the_call_comes_after(
    farm: afarm.Farm, gate: Gate, install: Install
) -> None:
    install(
        "first",
        {"first/__init__.py": f"from . import inner\n{gate.begin}", "first/inner.py": "",
         "first/rest.py": REST},
    )  # fmt: skip
    call = await submit_when_packed(
        farm, gate, by_value("def f():\n  import os, first\n  return os.listdir(first.__path__[0])")
    )

    await gate.wait_began()
    assert not call.done()
    gate.open()

    assert {"__init__.py", "inner.py", "rest.py"} <= set(await call)
    assert gate.began == 1


async def test_who_imports_what_is_not_there_yet_waits(
    farm: afarm.Farm, gate: Gate, install: Install
) -> None:
    # Where it was traced, it did not import the rest, nor list what lies beside it.
    late = "if 'early' in __file__:\n    from . import rest\n    value = rest.value\n"
    listed = "    import pkgutil; found = [m.name for m in pkgutil.iter_modules(__path__)]\n"
    install(
        "first",
        {"first/__init__.py": gate.begin + late + listed, "first/rest.py": f"value = 3\n{REST}",
         "first/zero.py": REST},
    )  # fmt: skip
    call = await submit_when_packed(
        farm, gate, by_value("def f():\n  import first\n  return first.value, first.found")
    )

    await gate.wait_began()
    gate.open()

    assert await call == (3, ["rest", "zero"])
    assert gate.began == 1


async def test_an_import_that_fails_for_want_of_the_rest_is_made_again(
    farm: afarm.Farm, gate: Gate, install: Install
) -> None:
    look = (
        "if not os.path.exists(os.path.join(os.path.dirname(__file__), 'rest.py')):\n"
        "    raise RuntimeError('the rest is not there')\n"
    )
    install("first", {"first/__init__.py": gate.begin + look, "first/rest.py": REST})
    call = await submit_when_packed(
        farm, gate, by_value("def f():\n  import os, first\n  return os.getpid(), first.__file__")
    )

    await gate.wait_began()
    gate.open()

    _, file = await call
    assert "/early/" in file
    assert gate.began == 2


async def test_a_storekeeper_that_dies_meanwhile_fails_the_call_and_ends_the_import(
    farm: afarm.Farm, gate: Gate, install: Install, tmp_path: Path
) -> None:
    wait = "if 'early' in __file__:\n    from . import rest\n"
    install("first", {"first/__init__.py": gate.begin + wait, "first/rest.py": REST})
    call = await submit_when_packed(farm, gate, by_value("def f():\n  import first"))
    await gate.wait_began()

    for pid in processes("storekeeper"):
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(afarm.NodeError, match="has died"):
        await call
    await until(lambda: not processes("template"))
    assert os.listdir(tmp_path / "there" / "environments") == []
    gate.open()
