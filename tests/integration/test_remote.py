"""The farm on real OpenSSH servers and on commands: the same calls as on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

import afarm
from afarm._agent.build import remove_tree
from afarm.environments import analyze
from tests.farm import functions as do
from tests.farm.waiting import alive, pid_in, until

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(params=["ssh", "command"])
async def farm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[afarm.Farm]:
    """A farm of one node that has nothing but a Python."""
    scratch = str(request.getfixturevalue("shared_scratch"))
    node: afarm.SSHNode | afarm.CommandNode
    if request.param == "ssh":
        sshd = request.getfixturevalue("sshd")
        node = afarm.SSHNode("sshd", config=sshd.config, scratch=scratch, cores=4)
    else:
        node = afarm.CommandNode(["/usr/bin/env", "-i"], scratch=scratch, cores=4)
    async with afarm.Farm([node], progress=False) as farm:
        yield farm


@pytest.fixture(scope="module")
def shared_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of this module, as on a real node."""
    return tmp_path_factory.mktemp("node")


async def test_calls_results_and_errors(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    assert await view.submit(do.add, 3, b=5) == 8
    assert await view.submit(lambda x: x * 2, 21) == 42
    with pytest.raises(ValueError, match="no good"):
        await view.submit(do.fail, ValueError, "no good")
    with pytest.raises(afarm.InvocationCrashed):
        await view.submit(do.leave_at_once, 3)
    assert [n async for n in view.map(do.add, range(40))] == list(range(1, 41))
    assert [n async for n in view.stream(do.numbers, 30)] == list(range(30))


@pytest.mark.parametrize("size", [0, 65_536, 20_000_000])
async def test_results_and_arguments_of_any_size(farm: afarm.Farm, size: int) -> None:
    assert await farm.submit(do.blob, size) == b"x" * size
    assert await farm.submit(len, b"y" * size) == size


async def test_installed_packages_reach_a_node_that_lacks_them(
    farm: afarm.Farm, isolation: str
) -> None:
    view = farm.options(isolation=isolation)
    assert await view.submit(do.total, np.ones(1000, np.uint8)) == (1000, True)
    where = await view.submit(lambda: (np.__file__, sys.executable))
    assert not where[0].startswith(sys.prefix)
    assert not where[1].startswith(sys.prefix)


async def test_the_functions_module_is_imported_there_and_not_sent_by_value(
    farm: afarm.Farm,
) -> None:
    place = await farm.submit(lambda: do.__file__)
    assert place != do.__file__
    assert place.endswith("tests/farm/functions.py")


async def test_cancelling_kills_there(farm: afarm.Farm, tmp_path: Path) -> None:
    call = farm.submit(do.spawn_stubborn_and_wait, str(tmp_path / "pid"))
    pid = await pid_in(tmp_path / "pid")
    call.cancel()
    await until(lambda: not alive(pid), 5)


async def test_a_module_that_is_missing_here_too_is_named_before_anything_is_sent(
    farm: afarm.Farm,
) -> None:
    def needs() -> None:
        import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(afarm.DependencyError, match="no_such_module_anywhere"):
        await farm.submit(needs)


async def test_a_second_farm_finds_everything_cached(shared_scratch: Path) -> None:
    node = afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(shared_scratch), cores=4)
    sent = [await bytes_sent(node, do.total, (10, True)) for _ in range(2)]
    assert sent[1] < 100_000


async def test_a_function_that_shares_packages_with_another_brings_only_the_others(
    tmp_path: Path,
) -> None:
    def encode(array: Any) -> tuple[float, str]:
        import mdurl

        return float(np.sum(array)), mdurl.encode("a b")

    node = afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(tmp_path / "node"), cores=2)
    first = await bytes_sent(node, do.total, (10, True))
    second = await bytes_sent(node, encode, (10.0, "a%20b"))
    remove_tree(str(tmp_path / "node"))

    mdurl = sum(found.bytes for found in analyze(lambda: __import__("mdurl")).distributions)
    assert first > 10_000_000
    assert second < 100_000 + 2 * mdurl


async def bytes_sent(node: afarm.CommandNode, fn: Callable[..., Any], expected: object) -> int:
    """Call a function with ten ones, on a connection of its own; return what that has sent."""
    async with afarm.Farm([node], progress=False) as farm:
        assert await farm.submit(fn, np.ones(10, np.uint8)) == expected
        scheduler = farm._life.scheduler
        assert scheduler is not None
        return scheduler.links[node.name].bytes_sent


async def test_what_is_said_before_the_agent_answers_is_skipped_and_shown_on_failure() -> None:
    noisy = ["/bin/sh", "-c", 'echo "Welcome to the cluster"; exec "$@"', "sh"]
    async with afarm.Farm([afarm.CommandNode(noisy)], progress=False) as farm:
        assert await farm.submit(do.add, 1) == 2
    broken = ["/bin/sh", "-c", 'echo "Your quota is exceeded"; exit 3', "sh"]
    with pytest.raises(afarm.NoNodesError, match="Your quota is exceeded"):
        await afarm.Farm([afarm.CommandNode(broken)], progress=False).open()


async def test_a_killed_agent_is_a_lost_node_that_comes_back(tmp_path: Path) -> None:
    node = afarm.LocalNode(cores=2)
    async with afarm.Farm([node], progress=False) as farm:
        parent = await farm.submit(do.spawn_agent_pid)
        first = tmp_path / "tries"
        call = farm.submit(do.wait_first_time, str(first))
        await until(first.exists)
        os.kill(parent, 9)
        assert await call == "second time"
        assert [attempt.outcome for attempt in call.attempts] == ["lost", "returned"]
        assert farm.stats().lost == 1
        once = farm.options(retries=0).submit(do.touch_and_wait, str(tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        os.kill(await farm.submit(do.spawn_agent_pid), 9)
        with pytest.raises(afarm.NodeLost, match="local"):
            await once
        await until(lambda: not alive(pid), 5)
        assert await farm.submit(do.add, 1) == 2


async def test_output_is_shown_with_where_it_came_from(capfd: pytest.CaptureFixture[str]) -> None:
    async with afarm.Farm(progress=False, show_output=True) as farm:
        await farm.submit(do.print_and_return, "seen")
        await asyncio.sleep(0)
    shown = capfd.readouterr().out
    assert "seen" in shown
    assert "print_and_return" in shown
    assert "local" in shown
