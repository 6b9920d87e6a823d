"""Modules that are made ready ahead of the forks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afarm._agent import prepared as ahead
from afarm._agent.prepared import Prepared, read_by_this_process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_code_that_was_read_is_run_at_the_import_and_not_before(folder: Path) -> None:
    write(folder, "package/__init__.py", "RAN = [1]\n")
    write(folder, "package/inner.py", "from . import RAN\nRAN.append(2)\n")
    finder = Prepared()
    finder.read(["package", "package.inner"])
    assert "package" not in sys.modules
    found = importlib.import_module("package.inner")
    assert found.RAN == [1, 2]
    assert found.__file__ == str(folder / "package/inner.py")
    assert type(found.__loader__).__module__ == ahead.__name__


def test_a_file_that_has_changed_since_is_read_anew(folder: Path) -> None:
    path = write(folder, "changing.py", "VALUE = 'before'\n")
    Prepared().read(["changing"])
    path.write_text("VALUE = 'afterwards'\n")
    importlib.invalidate_caches()
    assert importlib.import_module("changing").VALUE == "afterwards"


def test_a_file_that_is_gone_or_broken_is_left_to_whoever_imports_it(folder: Path) -> None:
    gone = write(folder, "gone.py", "")
    write(folder, "broken.py", "def :\n")
    finder = Prepared()
    finder.read(["gone", "broken", "nowhere", "nowhere.inside"])
    gone.unlink()
    importlib.invalidate_caches()
    for name, kind in (("gone", ImportError), ("broken", SyntaxError), ("nowhere", ImportError)):
        with pytest.raises(kind):
            importlib.import_module(name)


def test_modules_of_the_standard_library_are_imported(folder: Path) -> None:
    sys.modules.pop("colorsys", None)
    Prepared().read(["colorsys", "this", "antigravity"])
    assert "colorsys" in sys.modules
    assert "antigravity" not in sys.modules


def test_what_was_imported_is_told_once_and_packages_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "prepared", Prepared())
    write(folder, "whole/__init__.py", "from . import part\n")
    write(folder, "whole/part.py", "")
    known = len(sys.modules)
    importlib.import_module("whole")
    assert read_by_this_process(known) == ["whole", "whole.part"]
    ahead.prepared.read(["whole"])
    assert read_by_this_process(known) == ["whole.part"]
    assert read_by_this_process(len(sys.modules)) == []
