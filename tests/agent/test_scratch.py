"""The scratch directory of a worker that serves many calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from afarm._agent.scratch import Scratch, has_precise_times


@pytest.fixture(autouse=True)
def back() -> Iterator[None]:
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.mark.parametrize("precise", [None, False])
def test_what_a_call_leaves_is_gone_for_the_next_one(tmp_path: Path, precise: bool | None) -> None:
    scratch = Scratch(str(tmp_path), "one")
    scratch._precise = precise
    for leaves in (False, False, True, False, True, True, False):
        scratch.enter()
        assert os.listdir() == []
        if leaves:
            Path("left").write_bytes(bytes(100_000))
        assert bool(scratch.leave()) == leaves
    scratch.enter()
    assert os.listdir() == []


def test_an_empty_file_is_seen_right_after_the_folder_was_looked_at(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), "one")
    for number in range(200):
        scratch.enter()
        scratch.leave()
        scratch.enter()
        assert os.listdir() == []
        Path(str(number)).touch()
        scratch.leave()


def test_times_that_stand_still_are_not_precise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Still:
        st_ctime_ns = 7

    monkeypatch.setattr("os.stat", lambda path: Still())
    assert not has_precise_times(str(tmp_path))
