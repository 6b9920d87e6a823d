"""Folders of caches that are full, not to be written, not ours, or shared by hosts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import afarm
from afarm._agent.build import remove_tree
from afarm._agent.store import Store
from tests.hosts import Testbed

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Mounts = Callable[[str], Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounts]:
    """A function that mounts a small file system with given options."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting file systems needs root on Linux")
        folder = tmp_path / f"mounted{len(made)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "--lazy", folder], check=True)


def node(folder: Path, name: str = "small") -> afarm.CommandNode:
    return afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(folder), cores=2, name=name)


def fill(folder: Path, left: int = 0) -> Path:
    """Fill a file system but for some bytes."""
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left)
    return ballast


async def refusal(node: afarm.CommandNode) -> str:
    """Return why a farm of a node cannot be opened."""
    with pytest.raises(afarm.NoNodesError) as caught:
        async with afarm.Farm([node], progress=False):
            raise AssertionError("it was opened")
    [line] = [line for line in str(caught.value).splitlines() if node.name in line]
    return line


def total() -> float:
    return float(np.ones(5).sum())


async def test_a_full_folder_is_told_at_connect_and_serves_once_there_is_room(
    mounted: Mounts,
) -> None:
    folder = mounted("size=200m")
    ballast = fill(folder)
    line = await refusal(node(folder))
    assert f"no room in {folder} (0 B free): make room" in line
    assert "scratch=" in line
    ballast.unlink()
    async with afarm.Farm([node(folder)], progress=False) as farm:
        assert await farm.submit(total) == 5.0


async def test_a_folder_that_cannot_be_written_is_told_at_connect(mounted: Mounts) -> None:
    folder = mounted("size=1m,ro")
    line = await refusal(node(folder))
    assert f"cannot write into {folder}" in line
    assert "Read-only file system" in line
    assert "scratch=" in line


async def test_a_folder_from_which_nothing_can_be_loaded_is_told_at_connect(
    mounted: Mounts,
) -> None:
    folder = mounted("size=50m,noexec")
    line = await refusal(node(folder))
    assert f"{folder} is mounted noexec" in line
    assert "scratch=" in line


async def test_on_this_machine_nothing_is_loaded_from_the_folder(mounted: Mounts) -> None:
    local = afarm.LocalNode(scratch=str(mounted("size=50m,noexec")), cores=2)
    async with afarm.Farm([local], progress=False) as farm:
        assert await farm.submit(total) == 5.0


async def test_a_folder_of_somebody_else_is_told_at_connect(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder away needs root")
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, 4242, 4242)
    line = await refusal(node(folder))
    assert f"{folder} is not a folder of this user; name another with scratch=" in line


async def test_a_folder_that_others_may_write_to_is_told_at_connect(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    assert f"can be written by others; chmod go-w {folder}" in await refusal(node(folder))


async def test_a_bundle_that_finds_no_room_fails_its_calls_and_leaves_nothing(
    mounted: Mounts,
) -> None:
    folder = mounted("size=8m")
    async with afarm.Farm([node(folder)], progress=False) as farm:
        with pytest.raises(afarm.NodeError, match=r"free and a bundle needs .*scratch=") as caught:
            await farm.submit(total)
        assert caught.value.node == "small"
    assert os.listdir(folder / "environments") == []
    store = Store(str(folder))
    stored = os.listdir(folder / "store")
    assert all(store.has(name) for name in stored)  # half of one is under no such name
    store.close()


async def test_what_finds_no_room_on_one_node_runs_on_another(
    mounted: Mounts, tmp_path: Path
) -> None:
    small, large = node(mounted("size=8m")), node(tmp_path / "large", "large")
    async with afarm.Farm([small, large], progress=False) as farm:
        [seen] = [each for each in farm.nodes if each.name == "small"]
        async with asyncio.timeout(60):
            # It is asked for what it has no room for once it is up, and until then for nothing.
            while not seen.reason:
                calls = [farm.submit(total) for _ in range(8)]
                assert await asyncio.gather(*calls) == [5.0] * 8
                assert {call.attempts[-1].node for call in calls} == {"large"}
                [seen] = [each for each in farm.nodes if each.name == "small"]
        assert "cannot provide an environment" in seen.reason
        assert "free and a bundle needs" in seen.reason
    remove_tree(str(tmp_path / "large"))


async def test_two_hosts_that_share_a_folder_use_it_at_once(
    testbed: Testbed, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(0o700)
    os.chown(shared, 6001, 6001)  # the account of the hosts
    testbed.down()
    testbed.up(2, "--pyenv", "--share", f"{shared}:/net")
    try:
        python = afarm_python(testbed)
        nodes = [
            testbed.node(name, scratch="/net", cores=2, python=python, name=name)
            for name in ("h1", "h2")
        ]

        async def use(node: afarm.SSHNode) -> None:
            async with afarm.Farm([node], progress=False) as farm:
                calls = [farm.submit(total) for _ in range(10)]
                assert await asyncio.gather(*calls) == [5.0] * 10
                # A farm that comes later takes neither agent for a dead one.
                async with afarm.Farm([node], progress=False) as later:
                    assert await later.submit(total) == 5.0
                assert await farm.submit(total) == 5.0

        await asyncio.gather(*map(use, nodes))
        assert os.listdir(shared / "sessions") == []
        for name in ("store", "environments"):
            assert not [entry for entry in os.listdir(shared / name) if entry.startswith(".")]
    finally:
        testbed.down()
        remove_tree(str(shared))


def afarm_python(testbed: Testbed) -> str | None:
    """Return a path of the farm's own minor version on the hosts, if they have none themselves."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if testbed.run("exec", "h1", "/bin/sh", "-c", f"command -v {name}").returncode == 0:
        return None
    return os.path.realpath(sys.executable)
