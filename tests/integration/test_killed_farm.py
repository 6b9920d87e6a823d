"""A farm that is killed half way, and started again with its record."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afarm.errors import RecordError
from afarm.record import connect_to_read

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("rdkit", "sklearn", "PIL"))),
        reason="the demonstration's packages are not installed: pip install 'afarm[demo]'",
    ),
]

CALLS = 40


def demo(path: Path) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "afarm", "demo", "--quick", "--calls", str(CALLS))
    return subprocess.Popen(
        [*command, "--record", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "AFARM_HOSTS": "local"},
        cwd=Path(__file__).parent.parent.parent,
        start_new_session=True,
    )


def query(path: Path, statement: str) -> list[Any]:
    try:
        connection = connect_to_read(path)
    except RecordError:  # not there yet
        return []
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_demonstration_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "farm.db"
    first = demo(path)
    half = "SELECT count(*) FROM result"
    wait_for(lambda: query(path, half) > [(CALLS // 3,)], first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    [(kept,)] = query(path, half)
    assert CALLS // 3 < kept < CALLS

    second = demo(path)
    told, _ = second.communicate(timeout=120)
    assert second.returncode == 0, told
    assert f"{CALLS} of {CALLS} calls" in told
    assert f"{kept} of them were in the record" in told
    # What was done in the first run was not run in the second.
    runs = query(path, "SELECT run, state, returned, recalled FROM runs ORDER BY run")
    assert [run[1] for run in runs] == ["open or killed", "closed"]
    assert runs[1][2:] == (CALLS - kept, kept)
    ran = query(path, "SELECT count(DISTINCT number) FROM attempts WHERE run = 2")
    assert ran == [(CALLS - kept,)]
