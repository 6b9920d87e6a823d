"""Bundles compressed for slow links."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from afarm.environments import Bundle, deflate
from afarm.environments.bundle import pack
from afarm.environments.files import source_tree
from afarm.errors import DependencyError
from tests.environments.made_up import Project


@pytest.fixture
def bundle(project: Project, tmp_path: Path) -> Bundle:
    project.write({f"own/{name}.py": f"{name} = 1\n" * 50_000 for name in "abc"})
    first = [str(project.folder / "own" / "b.py")]
    return pack(source_tree(str(project.folder / "own"), "own"), tmp_path / "cache", first=first)


def test_it_inflates_to_the_same_and_its_head_to_the_head(bundle: Bundle) -> None:
    deflated = deflate(bundle)

    assert deflated is not None
    packed = deflated.path.read_bytes()
    assert len(packed) == deflated.size < bundle.size // 10
    data = bundle.path.read_bytes()
    assert zlib.decompress(packed) == data
    assert 0 < deflated.head < deflated.size
    assert zlib.decompressobj().decompress(packed[: deflated.head]) == data[: bundle.head]


def test_it_is_compressed_once_and_again_when_it_was_cut_off(bundle: Bundle) -> None:
    first = deflate(bundle)
    assert first is not None
    inode = first.path.stat().st_ino

    assert deflate(bundle) == first
    assert first.path.stat().st_ino == inode
    os.truncate(first.path, 100)
    assert deflate(bundle) == first
    assert first.path.stat().st_size == first.size


def test_what_hardly_shrinks_goes_as_it_is(project: Project, tmp_path: Path) -> None:
    (project.folder / "own").mkdir()
    (project.folder / "own" / "data.bin").write_bytes(os.urandom(200_000))
    bundle = pack(source_tree(str(project.folder / "own"), "own"), tmp_path / "cache")

    assert deflate(bundle) is None
    assert deflate(bundle) is None


def test_a_bundle_without_a_head_has_none_when_it_is_compressed(
    project: Project, tmp_path: Path
) -> None:
    project.write({"own/a.py": "x = 1\n" * 10_000})
    deflated = deflate(pack(source_tree(str(project.folder / "own"), "own"), tmp_path / "cache"))

    assert deflated is not None
    assert deflated.head == 0


def test_what_cannot_be_read_is_an_error_that_names_it(bundle: Bundle) -> None:
    bundle.path.unlink()

    with pytest.raises(DependencyError, match="cannot compress own"):
        deflate(bundle)
    assert not list(bundle.path.parent.glob(".*"))
