"""This side's own interpreter, as it travels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path, PurePosixPath

import pytest

from afarm.environments import interpreter
from afarm.environments.bytecode import read_code
from afarm.environments.interpreter import LEFT_OUT, Interpreter, is_left_out, pack_interpreter
from afarm.environments.scan import absolute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux's interpreter travels"),
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    return pack_interpreter(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def unpacked(packed: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(packed.path) as archive:
        archive.extractall(folder, filter="tar")
    return folder


def run(unpacked: Path, code: str) -> str:
    done = subprocess.run(
        [next((unpacked / "bin").iterdir()), "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        env={},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_packed_once_and_the_same_each_time(packed: Interpreter, tmp_path: Path) -> None:
    before = os.stat(packed.path)
    assert pack_interpreter(Path(packed.path).parent) == packed
    assert os.path.samestat(os.stat(packed.path), before)
    again = pack_interpreter(tmp_path)
    assert (again.digest, again.sha256, again.glibc) == (
        packed.digest, packed.sha256, packed.glibc,
    )  # fmt: skip
    assert Path(again.path).read_bytes() == Path(packed.path).read_bytes()


def test_a_packed_one_that_was_cut_off_is_packed_again(
    packed: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / Path(packed.path).name
    path.write_bytes(b"half of it")
    path.with_suffix(".json").write_bytes(Path(packed.path).with_suffix(".json").read_bytes())
    monkeypatch.setattr(interpreter, "_LEVEL", 1)  # faster
    unused = tmp_path / "of a Python that was removed.tar.gz"
    unused.write_bytes(b"")
    os.utime(unused, (1e9, 1e9))
    pack_interpreter(tmp_path)
    assert not unused.exists()
    assert path.stat().st_size > 1 << 20


def test_it_runs_with_its_own_files_and_the_nodes_c_library(unpacked: Path) -> None:
    """Every module in machine code that this side can import can be imported there."""
    code = (
        "import importlib, json, os, sys\n"
        "folder = [each for each in sys.path if each.endswith('lib-dynload')][0]\n"
        "names = sorted({name.split('.')[0] for name in os.listdir(folder)})\n"
        "failed = {}\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as exc: failed[name] = str(exc)\n"
        "maps = [line.split()[-1] for line in open('/proc/self/maps') if '/' in line]\n"
        "print(json.dumps([sys.prefix, names, failed, sorted(set(maps))]))\n"
    )
    prefix, names, failed, maps = json.loads(run(unpacked, code))
    assert prefix == str(unpacked)
    assert "_ssl" in names or "_ssl" in sys.builtin_module_names
    for name in failed:
        with pytest.raises(ImportError):
            __import__(name)
    assert not [path for path in maps if path.startswith(sys.base_prefix + "/") and "/lib/" in path
                and not path.startswith(str(unpacked)) and sys.base_prefix != "/usr"]  # fmt: skip
    foreign = {os.path.basename(path) for path in maps if not path.startswith(str(unpacked))}
    shared = {name for name in foreign if ".so" in name}
    assert all(interpreter._SYSTEM.fullmatch(name) for name in shared), shared


def test_its_modules_have_their_bytecode(unpacked: Path) -> None:
    code = (
        "import sys, json, asyncio, email\n"
        "print(json.dumps([m.__cached__ for m in (json, asyncio, email)]))\n"
    )
    for path in json.loads(run(unpacked, code)):
        flags = Path(path).read_bytes()[4:8]
        assert flags == b"\1\0\0\0"  # an unchecked hash: valid with any time stamp


def test_what_stays_here_has_a_reason_and_is_imported_by_nothing_that_travels(
    unpacked: Path,
) -> None:
    """But by what does without it: inside of functions, or where a failure is provided for."""
    library = next((unpacked / "lib").glob("python3.*"))
    own = {"__main__"}
    for path in library.rglob("*.py"):
        file = path.relative_to(library)
        assert not any(is_left_out(part) for part in file.parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        package = ".".join(PurePosixPath(file).parent.parts)
        for site in read_code(code).imports:
            needed = absolute(site, package, "")
            if needed is None or site.optional or site.lazy:
                continue
            names = {needed.module.split(".")[0], f"{needed.module.split('.')[0]}.py"}
            assert names.isdisjoint(LEFT_OUT) or names & own, f"{file} imports {needed.module}"
    assert all(LEFT_OUT.values())
