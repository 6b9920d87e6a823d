"""What is left of a connection when the farm's process is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.sshd import Sshd

from .recorder import PATIENCE, wait_exists

ROOT = Path(__file__).parents[2]

FARM = """
import asyncio, sys
from afarm.transport.command import CommandNode
from afarm.transport.local import LocalNode
from afarm.transport.ssh import SSHNode
from tests.transport.peer import PROGRAM
from tests.transport.recorder import Recorder

async def main():
    recorder = Recorder()
    node = {node}
    await node.connect(recorder, [b"say ready\\nmark {mark}\\n"], program=PROGRAM)
    await recorder.wait_received(5)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    "node",
    [
        "LocalNode()",
        "CommandNode(['env'], python=sys.executable)",
        "SSHNode('sshd', config={config!r}, python=sys.executable)",
    ],
    ids=["local", "command", "ssh"],
)
async def test_the_agent_sees_the_end_of_its_input_when_the_farm_is_killed(
    node: str, sshd: Sshd, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script = FARM.format(node=node.format(config=str(sshd.config)), mark=mark)
    farm = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    assert farm.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await farm.stdout.readline() == b"ready\n"
    farm.send_signal(signal.SIGKILL)
    await farm.wait()
    await wait_exists(mark)
