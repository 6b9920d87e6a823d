"""Reading what machine code needs, and telling it where to look for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm.environments.elf import Elf, ElfError
from afarm.environments.interpreter import _dynamic_modules

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF files are those of Linux")


def extension(name: str) -> Path:
    """Return a module of the standard library that is machine code, and needs a library."""
    for suffix in EXTENSION_SUFFIXES:
        if (path := Path(_dynamic_modules(), name + suffix)).exists():
            return path
    pytest.skip(f"{name} is part of this interpreter")


def libraries(path: Path) -> dict[str, str]:
    """Return what the loader finds for a file, by name."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
    found = (line.split() for line in done.stdout.splitlines() if " => " in line)
    return {fields[0]: fields[2] for fields in found}


def test_what_a_file_needs_is_what_the_loader_loads() -> None:
    path = extension("_bz2")
    needed = Elf(path.read_bytes()).needed
    assert needed
    assert set(needed) <= set(libraries(path))


def test_the_newest_symbol_of_the_c_library_is_found() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("there is no readelf here")
    for path in (extension("_bz2"), extension("_socket"), Path(sys.executable).resolve()):
        said = subprocess.run(
            ["readelf", "-V", path], capture_output=True, text=True, check=True
        ).stdout
        versions = [
            tuple(map(int, word.removeprefix("GLIBC_").split(".")[:2]))
            for word in said.split()
            if word.startswith("GLIBC_2")
        ]
        assert Elf(path.read_bytes()).glibc == max(versions)


def test_the_loader_looks_where_it_is_told_first(tmp_path: Path) -> None:
    path = extension("_bz2")
    elf = Elf(path.read_bytes())
    [name] = [each for each in elf.needed if each.startswith("libbz2")]
    (tmp_path / "lib").mkdir()
    shutil.copy(libraries(path)[name], tmp_path / "lib" / name)
    moved = tmp_path / "modules" / path.name
    moved.parent.mkdir()
    moved.write_bytes(elf.with_runpath("$ORIGIN/../lib"))

    assert Path(libraries(moved)[name]).resolve() == tmp_path / "lib" / name
    told = Elf(moved.read_bytes())
    assert (told.runpath, told.needed, told.glibc) == ("$ORIGIN/../lib", elf.needed, elf.glibc)


@given(st.integers(min_value=0, max_value=1 << 16))
def test_a_file_that_is_cut_off_is_read_or_refused(at: int) -> None:
    data = extension("_bz2").read_bytes()[:at]
    try:
        elf = Elf(data)
        _ = elf.needed, elf.runpath, elf.glibc
    except ElfError:
        pass


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(64)])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(ElfError):
        Elf(data)
