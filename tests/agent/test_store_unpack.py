"""A tar in pieces, and everything that must not be in it."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._agent.unpack import Unpacker, UnpackError
from tests.agent.made_up_bundles import bundle


def packed(entries: list[tarfile.TarInfo], contents: list[bytes], **options: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:  # type: ignore[call-overload]
        for entry, content in zip(entries, contents, strict=True):
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def file(name: str, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry


def unpack(data: bytes, folder: Path, step: int = 1 << 18) -> Unpacker:
    unpacker = Unpacker(str(folder))
    try:
        for at in range(0, len(data), step):
            unpacker.feed(data[at : at + step])
        unpacker.close()
    finally:
        unpacker.abort()
    return unpacker


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


SAMPLE = {
    "a": b"",
    "b/c/d.py": b"x" * 511,
    "b/e": b"y" * 512,
    "b/" + "long" * 60 + "/" + "é" * 60: b"z" * 2000,
}
SAMPLE_TAR = packed([file(name) for name in SAMPLE], list(SAMPLE.values()))


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_the_files_are_the_same_in_whatever_pieces_they_come(tmp_path: Path, step: int) -> None:
    unpacker = unpack(SAMPLE_TAR, tmp_path, step)

    assert files_of(tmp_path) == SAMPLE
    assert unpacker.names == list(SAMPLE)
    assert unpacker.bytes == sum(map(len, SAMPLE.values()))


def test_files_are_read_only_and_keep_whether_they_may_be_executed(tmp_path: Path) -> None:
    unpack(packed([file("run", 0o755), file("read", 0o666)], [b"", b"1"]), tmp_path)

    assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o555
    assert (tmp_path / "read").stat().st_mode & 0o7777 == 0o444


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "a/./b", ".", "a//b", "..", "a/.."]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()

    with pytest.raises(UnpackError, match="not a path inside"):
        unpack(packed([file(name)], [b"1"]), inside)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE],
)
def test_everything_but_regular_files_is_refused(tmp_path: Path, kind: bytes) -> None:
    entry = file("a")
    entry.type = kind
    entry.linkname = "/etc/passwd"

    with pytest.raises(UnpackError, match="not a regular file"):
        unpack(packed([entry], [b""]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnpackError, match="comes twice"):
        unpack(packed([file("a"), file("a")], [b"1", b"2"]), tmp_path)


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnpackError, match="both a file and a folder"):
        unpack(packed([file("a"), file("a/b")], [b"1", b"2"]), tmp_path)


@pytest.mark.parametrize("cut", [0, 100, 512, 600, len(SAMPLE_TAR) // 2])
def test_what_ends_in_the_middle_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(UnpackError):
        unpack(SAMPLE_TAR[:cut], tmp_path)


def test_what_follows_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnpackError, match="follows its end"):
        unpack(SAMPLE_TAR + packed([file("late")], [b""]), tmp_path)


def test_each_file_is_held_against_the_manifest(tmp_path: Path) -> None:
    digest, data = bundle({"a": "one", "b": "two"})
    changes = {
        "right": (data, ""),
        "content": (data.replace(b"two" + bytes(9), b"twO" + bytes(9)), "'b' is not what"),
        "list": (data.replace(b" - b\n", b" - c\n"), "not what its digest names"),
        "kind": (data.replace(b"afarm-bundle", b"other-bundle"), "the list of what it holds"),
        "line": (data.replace(b" - b\n", b" b b\n"), "has a line"),
        "twice": (data.replace(b" - b\n", b" - a\n"), "comes twice in its list"),
        "absent": (data[: 512 * 4] + bytes(1024), "'b' did not come"),
        "unlisted": (data[: 512 * 4] + packed([file("c")], [b"two"]), "'c' is not in its list"),
        "none": (SAMPLE_TAR, "does not begin with the list"),
    }

    for name, (sent, problem) in changes.items():
        folder = tmp_path / name
        folder.mkdir()
        unpacker = Unpacker(str(folder), digest)
        with pytest.raises(UnpackError, match=problem) if problem else contextlib.nullcontext():
            unpacker.feed(sent)
            unpacker.close()
        unpacker.abort()
        assert problem or files_of(folder) == {"a": b"one", "b": b"two"}


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_arbitrary_bytes_are_refused_or_harmless(data: bytes, step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "inside"
        inside.mkdir()
        if data.strip(b"\0"):
            with pytest.raises(UnpackError):
                unpack(data, inside, step)
        assert os.listdir(folder) == ["inside"]


@given(st.integers(0, len(SAMPLE_TAR) - 1), st.integers(1, 255))
def test_a_damaged_byte_writes_nothing_outside(at: int, change: int) -> None:
    data = bytearray(SAMPLE_TAR)
    data[at] ^= change
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "inside"
        inside.mkdir()
        with contextlib.suppress(UnpackError, OSError):
            unpack(bytes(data), inside)
        assert os.listdir(folder) == ["inside"]
