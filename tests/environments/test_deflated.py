"""Bundles compressed for slow links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afarm._wire.chunks import CHUNK, ChunkReader
from afarm.environments import QUICK, SMALL, Bundle, Deflating, deflate
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


@pytest.mark.parametrize("level", [QUICK, SMALL])
def test_each_chunk_is_there_as_soon_as_it_is_compressed(bundle: Bundle, level: int) -> None:
    deflating = Deflating(bundle, level)
    content = bundle.path.read_bytes()
    reader = ChunkReader()

    for at in range(0, bundle.size, CHUNK):
        assert deflating.chunk(at // CHUNK) is None
        deflating.advance()
        piece = deflating.chunk(at // CHUNK)
        assert piece is not None
        assert b"".join(reader.feed(piece)) == content[at : at + CHUNK]
    assert deflating.ended
    deflating.close()
    assert deflating.deflated == deflate(bundle)


def test_what_is_given_up_leaves_nothing_behind(bundle: Bundle) -> None:
    deflating = Deflating(bundle)
    deflating.advance()
    assert list(bundle.path.parent.glob(".*"))

    deflating.close()
    deflating.advance()

    assert deflating.ended
    assert deflating.chunk(0) is None
    assert not list(bundle.path.parent.glob(".*"))


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
    assert [path.stat().st_size for path in bundle.path.parent.glob("*.z")] == [0]
    again = Deflating(bundle)
    again.advance()
    assert again.ended
    assert not again.there
    again.close()


def test_what_cannot_be_read_is_an_error_that_names_it(bundle: Bundle) -> None:
    bundle.path.unlink()

    with pytest.raises(DependencyError, match="cannot compress own"):
        deflate(bundle)
    assert not list(bundle.path.parent.glob(".*"))
