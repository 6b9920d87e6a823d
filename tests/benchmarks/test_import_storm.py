"""The folder that the storm of imports is held against, and what is concluded from it."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fuse_relay, import_storm
from benchmarks.figures import Figure
from benchmarks.fuse_server import Answers, SharedFolder

LOOKUP, GETATTR, OPEN, READ, GETXATTR = 1, 3, 14, 15, 22

_HAS_FUSE = sys.platform == "linux" and os.geteuid() == 0 and os.path.exists("/dev/fuse")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    (shared / "package").mkdir(parents=True)
    (shared / "package" / "__init__.py").write_text("value = 7\n")
    (shared / "package" / "data").write_bytes(os.urandom(300_000))
    return shared


def test_a_file_is_looked_up_opened_and_read(folder: Path) -> None:
    answers = Answers(str(folder))
    package = struct.unpack_from("=Q", answers.to(LOOKUP, 1, b"package\0"))[0]
    data = struct.unpack_from("=Q", answers.to(LOOKUP, package, b"data\0"))[0]
    handle = struct.unpack_from("=Q", answers.to(OPEN, data, b""))[0]

    read = answers.to(READ, data, struct.pack("=QQI20x", handle, 1000, 4096))

    assert read == (folder / "package" / "data").read_bytes()[1000:5096]
    os.close(handle)


def test_a_name_that_is_not_there_may_be_believed_not_to_be(folder: Path) -> None:
    node, _, believed = struct.unpack_from("=QQQ", Answers(str(folder)).to(LOOKUP, 1, b"no\0"))
    assert node == 0
    assert believed == 60


def test_the_kernel_is_told_what_it_need_not_ask_again(folder: Path) -> None:
    with pytest.raises(OSError, match="not needed") as caught:
        Answers(str(folder)).to(GETXATTR, 1, b"")
    assert caught.value.errno == errno.ENOSYS


@contextlib.contextmanager
def _mounted(shared: SharedFolder, place: Path) -> Iterator[list[str]]:
    """Mount what is served, where nobody else sees it; yield what runs a command there."""
    relay = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", sys.executable, fuse_relay.__file__,
         "127.0.0.1", str(shared.port), str(place)],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert relay.stdout is not None
    with relay:
        try:
            assert relay.stdout.readline().strip() == fuse_relay.MOUNTED
            yield ["nsenter", "--mount", "--target", str(relay.pid)]
        finally:
            relay.kill()


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.skipif(not _HAS_FUSE, reason="mounting needs root and /dev/fuse")
def test_what_is_mounted_is_the_same_and_each_open_asks_the_server(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mounted"
    with SharedFolder(str(folder), "127.0.0.1") as shared, _mounted(shared, place) as there:
        same = subprocess.run([*there, "diff", "-r", str(folder), str(place)], timeout=30)
        known = shared.operations
        read = f"import os; os.read(os.open({str(place / 'package' / 'data')!r}, 0), 100)"
        subprocess.run([*there, sys.executable, "-I", "-S", "-c", read], check=True, timeout=30)

    assert same.returncode == 0
    assert known > 6  # two folders and two files: opened, listed, read
    assert shared.operations == known + 1


def test_each_way_is_held_against_the_shared_folder() -> None:
    took = {import_storm.TREE: 3.0, import_storm.SHARED: 2.0, import_storm.FORKED: 1.0}
    figures = [
        Figure(str(import_storm.Storm("numpy", 4, 2, way)), "first", "s", (seconds,))
        for way, seconds in took.items()
    ]

    assert [line.split()[0] for line in import_storm.conclude(figures)] == ["MISSED", "reached"]
