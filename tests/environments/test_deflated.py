"""Bundles compressed for slow links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afarm._wire.chunks import CHUNK, ChunkReader
from afarm.environments import Bundle, deflate
from afarm.environments.bundle import pack
from afarm.environments.files import source_tree
from afarm.errors import DependencyError
from tests.environments.made_up import Project


@pytest.fixture
def bundle(project: Project, tmp_path: Path) -> Bundle:
    project.write({f"own/{name}.py": f"{name} = 1\n" * 50_000 for name in "abc"})
    return pack(source_tree(str(project.folder / "own"), "own"), tmp_path / "cache")


def test_it_inflates_to_the_same(bundle: Bundle) -> None:
    deflated = deflate(bundle)

    assert deflated is not None
    packed = deflated.path.read_bytes()
    assert len(packed) == deflated.size < bundle.size // 10
    assert bundle.size > 2 * CHUNK
    assert b"".join(ChunkReader().feed(packed)) == bundle.path.read_bytes()


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


def test_what_cannot_be_read_is_an_error_that_names_it(bundle: Bundle) -> None:
    bundle.path.unlink()

    with pytest.raises(DependencyError, match="cannot compress own"):
        deflate(bundle)
    assert not list(bundle.path.parent.glob(".*"))
