"""``afarm cache``: what nodes have cached, and removing it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import afarm
from afarm.__main__ import main
from afarm._agent import inventory
from afarm._agent.build import remove_tree
from afarm._agent.store import Store
from afarm.commands import cache
from tests.agent.made_up_bundles import PACKAGE, put


def node(folder: Path) -> afarm.CommandNode:
    return afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(folder), cores=2, name="bare")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "cache"
    yield folder
    if folder.exists():
        remove_tree(str(folder))


def test_what_no_process_holds_is_removed_and_the_rest_stays(root: Path) -> None:
    with_name = {**PACKAGE, "site-packages/pack-1.2.dist-info/METADATA": ""}
    store = Store(str(root))
    held = put(store, with_name)
    store.environment("ab12", [held])
    other = Store(str(root))
    loose = put(other, {"source/mine.py": "x = 1\n" * 3000})
    other.close()

    listed = {entry["name"]: entry for entry in inventory.entries(str(root))}
    assert listed[held]["title"] == "pack 1.2"
    assert listed[loose]["title"] == "mine.py"
    assert [listed[name]["in_use"] for name in (held, loose)] == [True, False]
    assert listed[loose]["bytes"] >= 18_000  # type: ignore[operator]
    assert [e["title"] for e in listed.values() if e["kind"] == "environment"] == ["1 bundle"]

    done = inventory.clear(str(root))
    assert (done["removed"], done["kept"]) == (1, 2)
    assert done["freed"] >= listed[loose]["bytes"]  # type: ignore[operator]
    store.close()
    assert inventory.clear(str(root))["removed"] == 2
    assert inventory.entries(str(root)) == []


@pytest.mark.slow
@pytest.mark.integration
async def test_a_node_tells_what_farms_have_left_there(root: Path) -> None:
    async with afarm.Farm([node(root)], progress=False) as farm:
        assert await farm.submit(lambda: float(np.ones(3).sum())) == 3.0
        [content] = await cache.ask([node(root)], "list")
        assert content.entries is not None
        used = {entry.title.partition(" ")[0]: entry for entry in content.entries}
        assert used["numpy"].in_use
        assert used["numpy"].bytes > 10 << 20
        [busy] = await cache.ask([node(root)], "clear")
        assert (busy.removed, busy.kept) == (0, len(content.entries))
        assert await farm.submit(lambda: float(np.ones(4).sum())) == 4.0
    [cleared] = await cache.ask([node(root)], "clear")
    assert cleared.removed == len(content.entries)
    assert cleared.freed >= used["numpy"].bytes
    assert [os.listdir(root / name) for name in ("store", "environments")] == [[], []]


def test_the_answer_is_a_line_for_each_thing() -> None:
    entries = (
        cache.Entry("bundle", "b" * 64, "numpy 2.4.6", 3 << 20, 90.0, False),
        cache.Entry("environment", "e" * 20, "1 bundle", 0, 95.0, True),
    )
    said = cache.describe(cache.Content("h1", root="/cache", entries=entries), 100.0)
    assert said.splitlines() == [
        "h1: /cache: 3.0 MiB in 2 things",
        "  bundle      bbbbbbbbbbbb     3.0 MiB  used 10.0 s ago         numpy 2.4.6",
        "  environment eeeeeeeeeeee         0 B  in use                  1 bundle",
    ]
    cleared = cache.Content("h1", root="/cache", removed=1, kept=2, freed=5 << 20)
    assert cache.describe(cleared, 0.0) == (
        "h1: /cache: 1 thing removed, 5.0 MiB freed; 2 things in use stayed"
    )


def test_the_command_says_why_a_node_does_not_answer(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFARM_CACHE", str(root))
    for words in ([], ["list"], ["local"], ["list", "local"]):
        assert main(["cache", *words]) == 0
        assert capsys.readouterr().out == f"local: {root}: 0 B in 0 things\n"
    root.mkdir(0o700)
    root.chmod(0o777)
    assert main(["cache", "clear", "local"]) == 1
    assert "can be written by others; chmod go-w" in capsys.readouterr().out
