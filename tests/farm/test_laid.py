"""Files that calls find in their directory, and packages and modules that are taken along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import afarm
from afarm.laid import named_files
from tests.farm import functions as do

pytestmark = pytest.mark.integration


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "one.txt").write_text("one")
    (tmp_path / "data" / "deep" / "two.txt").write_text("")
    (tmp_path / "large.bin").write_bytes(os.urandom(1000) * 3000)
    return tmp_path


def files_of(names: list[str]) -> list[str]:
    import importlib

    return [str(importlib.import_module(name).__file__) for name in names]


def content() -> dict[str, bytes]:
    found = {}
    for folder, _, names in os.walk("."):
        for name in names:
            path = Path(folder, name)
            found[str(path)] = path.read_bytes()
    return found


async def test_calls_find_files_in_their_directory(table: Path, isolation: str) -> None:
    files = {"in/data": table / "data", "large.bin": table / "large.bin"}
    async with afarm.Farm(progress=False) as farm:
        view = farm.options(files=files, isolation=isolation)
        for _ in range(3):
            assert await view.submit(content) == {
                "in/data/one.txt": b"one",
                "in/data/deep/two.txt": b"",
                "large.bin": (table / "large.bin").read_bytes(),
            }
        assert await farm.options(isolation=isolation).submit(content) == {}


async def test_a_file_is_sent_once_and_again_when_it_has_changed(table: Path) -> None:
    def sent() -> int:
        scheduler = farm._life.scheduler
        assert scheduler is not None
        return sum(link.bytes_sent for link in scheduler.links.values())

    async with afarm.Farm(progress=False) as farm:
        view = farm.options(files=[table / "large.bin"])
        assert len((await view.submit(content))["large.bin"]) == 3_000_000
        before = sent()
        assert before >= 3_000_000
        await view.submit(content)
        assert sent() - before < 100_000
        (table / "large.bin").write_bytes(b"new" * 1000)
        assert await view.submit(content) == {"large.bin": b"new" * 1000}


async def test_views_add_up(table: Path) -> None:
    async with afarm.Farm(progress=False) as farm:
        outer = farm.options(files=table / "data" / "one.txt", packages=["numpy"])
        inner = outer.options(files={"b": table / "data" / "deep" / "two.txt"}, modules=["json"])
        assert await inner.submit(content) == {"one.txt": b"one", "b": b""}
        added = inner._options.added
        assert (added.packages, added.modules) == (("numpy",), ("json",))


async def test_a_file_that_is_gone_is_told_through_the_invocation(table: Path) -> None:
    async with afarm.Farm(progress=False) as farm:
        view = farm.options(files=table / "large.bin")
        (table / "large.bin").unlink()
        with pytest.raises(afarm.DependencyError, match=r"large\.bin, which cannot be read"):
            await view.submit(content)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"files": "/not/there"}, "/not/there, which is no file"),
        ({"files": [__file__, __file__]}, "two of one name"),
        ({"files": {"../up": __file__}}, "no place in a folder"),
        ({"files": {"/up": __file__}}, "no place in a folder"),
        ({"files": {"": __file__}}, "no place in a folder"),
        ({"files": __file__, "cwd": "/tmp"}, "state one of them"),
    ],
)
def test_what_cannot_be_laid_is_refused_where_it_is_stated(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        afarm.Farm().options(**options)


def test_names_of_packages_and_modules_are_checked() -> None:
    farm = afarm.Farm()
    assert farm.options(packages="numpy", modules=os)._options.added.modules == ("os",)
    with pytest.raises(TypeError, match="packages are names, not 3"):
        farm.options(packages=[3])  # type: ignore[list-item]


def test_a_folder_stands_for_all_files_in_it(table: Path) -> None:
    assert named_files(table / "data") == {
        "data/one.txt": str(table / "data" / "one.txt"),
        "data/deep/two.txt": str(table / "data" / "deep" / "two.txt"),
    }


async def test_packages_and_modules_reach_a_node_that_nothing_seen_would_bring_there(
    tmp_path: Path,
) -> None:
    node = afarm.CommandNode(["/usr/bin/env", "-i"], scratch=str(tmp_path), cores=2)
    async with afarm.Farm([node], progress=False) as farm:
        view = farm.options(packages=["mdurl"], modules=["tests.sshd"])
        names = ["mdurl", "tests.sshd"]
        files = await view.submit(files_of, names)
        assert all(file.startswith(str(tmp_path)) for file in files)
        with pytest.raises(afarm.DependencyError, match="no such distribution is installed"):
            await farm.options(packages=["not-there-at-all"]).submit(do.add, 1)
