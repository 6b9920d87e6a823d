"""What the farm finds out about the software of functions, and how often."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

import afarm
from afarm import software
from afarm.software import Added, SoftwareLibrary


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


@pytest.fixture
def library() -> SoftwareLibrary:
    return SoftwareLibrary(itertools.count(1))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFARM_CACHE", str(tmp_path / "cache"))


def bundles(environment: Any) -> list[str]:
    return [bundle.name.split()[0] for bundle in environment.bundles]


async def test_many_calls_at_once_look_at_a_function_once(
    library: SoftwareLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    really = software._look_at

    def count(*arguments: Any) -> Any:
        looked.append(arguments)
        return really(*arguments)

    monkeypatch.setattr(software, "_look_at", count)
    fn = by_value("def f(): import mdurl")

    found = await asyncio.gather(*(library.find(fn, ship=True) for _ in range(50)))

    assert len(looked) == 1
    assert len(set(map(id, found))) == 1
    await library.find(fn, ship=True, added=Added(modules=("json",)))
    assert len(looked) == 2


async def test_of_those_who_wait_one_may_give_up(library: SoftwareLibrary) -> None:
    fn = by_value("def f(): import mdurl")
    tasks = [asyncio.create_task(library.find(fn, ship=True)) for _ in range(2)]
    await asyncio.sleep(0)

    tasks[0].cancel()

    assert bundles((await tasks[1]).shipped) == ["mdurl"]
    assert tasks[0].cancelled()


async def test_each_who_waits_is_told_what_is_missing(library: SoftwareLibrary) -> None:
    fn = by_value("def f(): import not_there_at_all")

    found = await asyncio.gather(
        *(library.find(fn, ship=True) for _ in range(3)), return_exceptions=True
    )

    assert [type(each) for each in found] == [afarm.DependencyError] * 3


async def test_functions_that_are_alike_in_place_are_all_provided_for_on_a_later_node(
    library: SoftwareLibrary,
) -> None:
    one = by_value("def f():\n  try: import mdurl\n  except ImportError: pass")
    two = by_value("def f():\n  try: import yaml\n  except ImportError: pass")
    three = by_value("def f(x): return x")
    arguments = Added(carried=frozenset(["tblib"]))
    found = [
        await library.find(one, ship=False),
        await library.find(two, ship=False),
        await library.find(three, ship=False, added=arguments),
    ]
    assert found[0] is found[1] is found[2]

    environment = await library.ship(found[0])

    assert sorted(bundles(environment)) == ["PyYAML", "mdurl", "tblib"]
    assert await library.ship(found[2]) is environment
    late = by_value("def f():\n  try: import PIL\n  except ImportError: pass")
    other = await library.find(late, ship=False)
    assert other is not found[0]
    assert bundles(await library.ship(other)) == ["pillow"]


@pytest.mark.integration
async def test_a_map_goes_on_with_a_node_that_joins(tmp_path: Path) -> None:
    source = (
        "def f(n):\n  import sys\n  try:\n    import {}\n    return sys.executable\n"
        "  except ImportError:\n    return 'without'"
    )
    functions = [by_value(source.format(name)) for name in ("mdurl", "yaml")]
    async with afarm.Farm([afarm.LocalNode(cores=1)], progress=False, isolation="fork") as farm:
        for fn in functions:
            assert await farm.submit(fn, 0) == sys.executable
        await farm.add_node(
            afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(tmp_path / "node"), cores=4)
        )
        await farm.remove_node("local")
        places = [await farm.submit(fn, 0) for fn in functions]
    assert all(place.startswith(str(tmp_path)) for place in places), places
