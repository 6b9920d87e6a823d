"""The life of a farm: opened once, closed in order, and nothing left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import afarm
from tests.farm import functions as do
from tests.farm.waiting import alive, pid_in, until


def test_making_a_farm_needs_no_loop() -> None:
    assert "new" in repr(afarm.Farm())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sizing": "best"}, ValueError),
        ({"isolation": "none"}, ValueError),
        ({"retries": -1}, ValueError),
        ({"silence": 0}, ValueError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        afarm.Farm(**arguments)  # type: ignore[arg-type]


async def test_submit_before_opening_and_after_closing_is_misuse() -> None:
    farm = afarm.Farm(progress=False)
    with pytest.raises(RuntimeError, match="not open"):
        farm.submit(do.add, 1)
    async with farm:
        assert await farm.submit(do.add, 1) == 2
    with pytest.raises(RuntimeError, match="closed"):
        farm.submit(do.add, 1)
    with pytest.raises(RuntimeError, match="opened once"):
        await farm.open()


async def test_submit_from_another_thread_names_the_executor(farm: afarm.Farm) -> None:
    caught: list[BaseException] = []

    def submit() -> None:
        try:
            farm.submit(do.add, 1)
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=submit)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "afarm.Executor" in str(caught[0])


async def test_leaving_normally_waits_for_what_was_submitted(tmp_path: Path) -> None:
    async with afarm.Farm(progress=False) as farm:
        calls = [farm.submit(do.sleep, 0.2, n) for n in range(3)]
    assert [call.result() for call in calls] == [0, 1, 2]


async def test_leaving_by_an_exception_cancels_and_waits_for_the_kills(
    nothing_left: None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="the caller's"):
        async with afarm.Farm(progress=False) as farm:
            call = farm.submit(do.touch_and_wait, str(tmp_path / "pid"))
            pid = await pid_in(tmp_path / "pid")
            raise ValueError("the caller's own")
    assert call.cancelled()
    assert not alive(pid)


async def test_cancelling_the_wait_cancels_everything(nothing_left: None, tmp_path: Path) -> None:
    async def work() -> None:
        async with afarm.Farm(progress=False) as farm:
            farm.submit(do.touch_and_wait, str(tmp_path / "pid"))

    task = asyncio.create_task(work())
    pid = await pid_in(tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_a_failed_invocation_cancels_nothing_else(farm: afarm.Farm) -> None:
    good = farm.submit(do.sleep, 0.2, "good")
    with pytest.raises(ValueError, match="bad"):
        await farm.submit(do.fail, ValueError, "bad")
    assert await good == "good"


async def test_failures_nobody_looked_at_are_told_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with afarm.Farm(progress=False) as farm:
        kept = [farm.submit(do.fail) for _ in range(3)]
        farm.submit(do.fail)
    told = [record.getMessage() for record in caplog.records if "nobody looked" in record.msg]
    assert told == ["4 failures that nobody looked at: tests.farm.functions.fail (4)"]
    assert len(kept) == 3


async def test_when_no_node_can_be_opened_each_is_named_with_its_reason() -> None:
    nodes = [
        afarm.CommandNode(["/bin/false"], name="first"),
        afarm.CommandNode(["/nonexistent"], name="second"),
    ]
    with pytest.raises(afarm.NoNodesError) as caught:
        async with afarm.Farm(nodes, progress=False):
            pass
    assert set(caught.value.reasons) == {"first", "second"}
    lines = str(caught.value).splitlines()
    assert any("first" in line for line in lines)
    assert any("second" in line for line in lines)


async def test_a_farm_starts_with_the_nodes_that_answer(caplog: pytest.LogCaptureFixture) -> None:
    bad = afarm.CommandNode(["/nonexistent"], name="bad")
    async with afarm.Farm(["local", bad], progress=False) as farm:
        assert await farm.submit(do.add, 1) == 2
        await until(lambda: {n.name: n.reason for n in farm.nodes}["bad"])
        states = {node.name: node.state for node in farm.nodes}
    assert states["local"] == "up"
    assert states["bad"] != "up"
    assert [r for r in caplog.records if "bad" in r.getMessage()]


async def test_open_and_close_without_a_with_block(nothing_left: None) -> None:
    farm = afarm.Farm(progress=False)
    assert await farm.open() is farm
    call = farm.submit(do.sleep, 60)
    await farm.close(cancel=True)
    assert call.cancelled()
    await farm.close()


SCRIPT = """
import asyncio, sys, afarm
from tests.farm import functions as do
async def main():
    async with afarm.Farm(progress=False) as farm:
        {body}
asyncio.run(main())
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_a_killed_farm_leaves_nothing_on_its_node(tmp_path: Path, isolation: str) -> None:
    path = str(tmp_path / "pid")
    process = start(
        f"await farm.options(isolation={isolation!r}).submit(do.spawn_stubborn_and_wait, {path!r})"
    )
    pid = await pid_in(tmp_path / "pid")
    process.kill()
    began = time.monotonic()
    await until(lambda: not alive(pid), 6)
    assert time.monotonic() - began < 5
    process.communicate()


async def test_ctrl_c_cancels_all_waits_and_exits(tmp_path: Path) -> None:
    path = str(tmp_path / "pid")
    process = start(f"await farm.submit(do.touch_and_wait, {path!r})")
    pid = await pid_in(tmp_path / "pid")
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate, timeout=10)
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert "KeyboardInterrupt" in errors
    assert not alive(pid)


async def test_blocking_the_loop_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from afarm import link

    monkeypatch.setattr(link, "PATIENCE", 2.0)
    async with afarm.Farm(progress=False) as farm:
        calls = [farm.submit(do.sleep, 0.1, n) for n in range(20)]
        await asyncio.sleep(0)
        time.sleep(5)  # longer than every heartbeat, and than a node's time limit here
        assert await asyncio.gather(*calls) == list(range(20))
        assert all(len(call.attempts) == 1 for call in calls)
        assert farm.stats().lost == 0


async def test_a_silent_farm_is_given_up_by_its_node(tmp_path: Path) -> None:
    path = str(tmp_path / "pid")
    script = SCRIPT.replace("progress=False", "progress=False, silence=1")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            script.format(body=f"await farm.submit(do.touch_and_wait, {path!r})"),
        ]
    )
    pid = await pid_in(tmp_path / "pid")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await until(lambda: not alive(pid), 10)
    finally:
        process.kill()
        process.wait()
