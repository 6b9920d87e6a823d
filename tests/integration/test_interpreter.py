"""Nodes without a Python of this side's version run functions with this side's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import afarm
from afarm._agent.build import remove_tree
from afarm.commands import cache
from afarm.transport.process import ProcessConnection
from tests import bare
from tests.bare import BareRoot
from tests.hosts import Testbed

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
CACHE = "var/tmp/afarm-0"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[BareRoot]:
    if reason := bare.unavailable():
        pytest.skip(reason)
    made = BareRoot.make(tmp_path / "root")
    yield made
    remove_tree(str(made.folder))


def where() -> tuple[str, str, float]:
    import json
    import ssl
    import subprocess

    said = subprocess.run(
        [sys.executable, "-c", "import sys, json; print(json.dumps(sys.version))"],
        capture_output=True,
        check=True,
    )
    base = getattr(sys, "_base_executable", "")
    assert ssl.OPENSSL_VERSION
    return base, json.loads(said.stdout), float(np.ones(5).sum())


async def refusal(node: afarm.CommandNode) -> str:
    with pytest.raises(afarm.NoNodesError) as caught:
        async with afarm.Farm([node], progress=False):
            raise AssertionError("it was opened")
    return str(caught.value)


async def test_a_node_without_python_is_sent_one_once(
    root: BareRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    write = ProcessConnection.write

    def counting(self: ProcessConnection, parts: Sequence[bytes | memoryview]) -> None:
        sent[-1] += sum(map(len, parts))
        write(self, parts)

    monkeypatch.setattr(ProcessConnection, "write", counting)
    for _ in range(2):
        sent.append(0)
        async with afarm.Farm([root.node()], progress=False) as farm:
            base, version, total = await farm.submit(where)
            assert await asyncio.gather(*(farm.submit(abs, -n) for n in range(20)))
        assert (version, total) == (sys.version, 5.0)
        assert base.startswith(f"/{CACHE}/interpreters/")
    assert sent[0] > 10 << 20
    assert sent[1] < 1 << 20
    monkeypatch.undo()

    [content] = await cache.ask([root.node()], "list")
    assert content.entries is not None
    [kept] = [entry for entry in content.entries if entry.kind == "interpreter"]
    assert kept.title == f"python{VERSION}"
    [cleared] = await cache.ask([root.node()], "clear")
    assert cleared.freed >= kept.bytes
    assert os.listdir(root.folder / CACHE / "interpreters") == []


async def test_an_interpreter_that_is_in_use_is_not_cleared(root: BareRoot) -> None:
    async with afarm.Farm([root.node()], progress=False) as farm:
        [content] = await cache.ask([root.node()], "clear")
        assert content.kept >= 1
        assert (await farm.submit(where))[2] == 5.0


async def test_a_node_of_busybox_is_sent_one(tmp_path: Path) -> None:
    if (reason := bare.unavailable()) or not shutil.which("busybox"):
        pytest.skip(reason or "there is no busybox here")
    made = BareRoot.make(tmp_path / "root", busybox=True)
    async with afarm.Farm([made.node()], progress=False) as farm:
        assert (await farm.submit(where))[2] == 5.0
    remove_tree(str(made.folder))


async def test_a_node_with_another_version_is_sent_one(root: BareRoot) -> None:
    root.program("python3", "echo cpython-39 3.9.18 /bin/python3")
    async with afarm.Farm([root.node()], progress=False) as farm:
        assert (await farm.submit(where))[0].startswith(f"/{CACHE}/interpreters/")


async def test_a_node_with_too_old_a_library_is_refused_with_the_ways_out(root: BareRoot) -> None:
    root.program("python3.9", "echo cpython-39 3.9.18 /bin/python3.9")
    root.program("getconf", "echo glibc 2.5")
    text = await refusal(root.node())
    assert f"there is no Python {VERSION}, the farm's own version; found: 3.9.18" in text
    assert "(/bin/python3.9)" in text
    assert "glibc 2.5. The farm's own cannot be sent: it needs the GNU C library 2." in text
    assert f"Install Python {VERSION} there, name one with SSHNode(python=...)" in text
    assert "or run the farm under a version that the node has" in text
    assert not (root.folder / CACHE).exists()


async def test_what_was_cut_off_while_it_was_sent_is_not_used(root: BareRoot) -> None:
    (root.folder / "bin/head").rename(root.folder / "bin/real-head")
    root.program(
        "head",
        'case $2 in 1|[0-9]|??????) exec /bin/real-head "$@";; esac\n'
        "/bin/real-head -c 3000000; kill -9 $PPID",
    )
    assert "node bare" in await refusal(root.node())
    kept = os.listdir(root.folder / CACHE / "interpreters")
    assert [name for name in kept if not name.startswith(".")] == []
    (root.folder / "bin/real-head").rename(root.folder / "bin/head")
    async with afarm.Farm([root.node()], progress=False) as farm:
        assert (await farm.submit(where))[2] == 5.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=10m", "no room in /small for an interpreter: make room, or name another folder"),
        ("size=60m", "no room in /small to unpack an interpreter: make room, or name another"),
        ("size=300m,noexec", "does not run from /small (noexec?)"),
        ("size=1m,ro", "cannot write into /small; name another folder with scratch="),
    ],
)
async def test_a_folder_that_cannot_keep_one_is_told(
    root: BareRoot, options: str, said: str
) -> None:
    assert said in await refusal(root.node(small=options, scratch="/small"))


async def test_a_host_without_python_is_sent_one_over_ssh(testbed: Testbed) -> None:
    [node] = testbed.up(1)
    testbed.shell("h1", "mkdir /hidden && mv /usr/bin/python3* /hidden")
    try:
        for _ in range(2):
            async with afarm.Farm([node], progress=False) as farm:
                base, version, total = await farm.submit(where)
            assert base.startswith("/var/tmp/afarm-6001/interpreters/")
            assert (version, total) == (sys.version, 5.0)
    finally:
        testbed.shell("h1", "mv /hidden/* /usr/bin && rmdir /hidden; rm -rf /var/tmp/afarm-6001")
