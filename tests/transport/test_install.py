"""The scripts that find out what a node is, and keep and start an interpreter there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afarm._agent.build import remove_tree
from afarm.environments.interpreter import Interpreter
from afarm.transport import bootstrap, install
from afarm.transport.contact import why_not
from afarm.transport.install import Facts, Found

HELLO = zlib.compress(b"import os, sys\nprint('hello', sys.orig_argv[0], os.read(0, 100))\n")
PROGRAM = "bin/python"
DIGEST = "d" * 64


@pytest.fixture(params=["sh", "dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Each shell in turn, as a command that runs a script."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"there is no {request.param} here")
    return [path, *(["sh"] if request.param == "busybox" else []), "-c"]


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def look(shell: list[str], path: str, home: Path) -> Facts:
    done = subprocess.run(
        [*shell, install.look_script()],
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == install.DONE, done.stderr
    return install.read_facts(lines)


def test_a_look_finds_each_python_once_wherever_it_lies(shell: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    old = tmp_path / "with space" / "python3.9"
    executable(old, f"echo cpython-39 3.9.18 '{old}'")
    (old.parent / "python3").symlink_to(old)
    executable(tmp_path / "broken" / "python3", "echo 'no such version' >&2; exit 127")
    pyenv = home / ".pyenv/versions/3.8.2/bin/python3.8"
    executable(pyenv, f"echo cpython-38 3.8.2 {pyenv}")
    path = os.pathsep.join([str(old.parent), str(tmp_path / "broken"), "/usr/bin", "/bin"])
    facts = look(shell, path, home)

    assert facts.machine == f"{os.uname().sysname} {os.uname().machine}"
    found = [each for each in facts.pythons if str(tmp_path) in each.path]
    assert found == [
        Found("cpython-39", "3.9.18", str(old)),
        Found("cpython-38", "3.8.2", str(pyenv)),
    ]
    assert len({each.path for each in facts.pythons}) == len(facts.pythons)


def test_a_look_needs_no_program_but_sh(shell: list[str], tmp_path: Path) -> None:
    facts = look(shell, str(tmp_path), tmp_path)
    assert facts.libc == ""
    assert all("/nowhere" not in each.path for each in facts.pythons)


def test_a_look_says_which_c_library_there_is(shell: list[str], tmp_path: Path) -> None:
    executable(tmp_path / "getconf", 'echo "glibc 2.17"')
    path = f"{tmp_path}:/usr/bin:/bin"
    assert look(shell, path, tmp_path).libc == "glibc 2.17"
    executable(tmp_path / "getconf", "exit 1")
    executable(tmp_path / "ldd", 'printf "musl libc (x86_64)\\nVersion 1.2.4\\n" >&2; exit 1')
    assert look(shell, path, tmp_path).libc == "musl libc (x86_64)"


OURS = Interpreter("d", "s", 1, 1, PROGRAM, "x86_64", (2, 34), "3.11.7", "/here")


@pytest.mark.parametrize(
    ("machine", "libc", "why"),
    [
        ("Linux x86_64", "glibc 2.34", ""),
        ("Linux x86_64", "ldd (Debian GLIBC 2.36-9+deb12u14) 2.36", ""),
        ("Linux x86_64", "", ""),
        ("Linux x86_64", "glibc 2.17", "it needs the GNU C library 2.34"),
        ("Linux x86_64", "ldd (GNU libc) 2.9", "it needs the GNU C library 2.34"),
        ("Linux x86_64", "musl libc (x86_64)", "it needs the GNU C library"),
        ("Linux aarch64", "glibc 2.36", "it is for Linux x86_64"),
        ("Darwin x86_64", "", "it is for Linux x86_64"),
    ],
)
def test_an_interpreter_is_sent_where_it_runs(machine: str, libc: str, why: str) -> None:
    assert why_not(OURS, Facts((), machine, libc)) == why


class Node:
    """A script that keeps an interpreter, and what it is sent."""

    def __init__(
        self, shell: list[str], root: Path, path: str, packed: bytes, **changes: str
    ) -> None:
        self.packed = packed
        script = install.install_script(
            DIGEST,
            changes.get("sha256", hashlib.sha256(self.packed).hexdigest()),
            len(self.packed),
            PROGRAM,
            scratch=str(root),
            unpacker=changes.get("unpacker", ""),
            length=len(HELLO),
        )
        self.process = subprocess.Popen(
            [*shell, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": path, "HOME": str(root)},
        )

    def talk(self, packed: bytes | None = None) -> tuple[list[str], str]:
        """Answer what it says; return that, and what it printed to standard error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        with self.process as process:
            said = []
            for line in process.stdout:  # type: ignore[union-attr]
                said.append(line.decode().rstrip("\n"))
                if said[-1] == install.SEND:
                    self.process.stdin.write(self.packed if packed is None else packed)
                    if packed is not None:
                        self.process.stdin.close()
                    else:
                        self.process.stdin.flush()
                elif said[-1] == install.GO:
                    self.process.stdin.write(HELLO)
                    self.process.stdin.close()
            error = self.process.stderr.read().decode()
        return said, error


def made_up(**more: bytes) -> bytes:
    """Return a packed interpreter that is this one by another name."""
    stream = io.BytesIO()
    content = {
        **more,
        PROGRAM: f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode(),
        "lib/some.py": b"x = 1\n",
    }
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if name == PROGRAM else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), mtime=0)


Start = Callable[..., Node]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / 'it\'s "here" $HOME'
    folder.mkdir(0o700)
    yield folder
    remove_tree(str(folder))


@pytest.fixture
def start(shell: list[str], root: Path) -> Start:
    def start(path: str = "/usr/bin:/bin", packed: bytes = b"", **changes: str) -> Node:
        return Node(shell, root, path, packed or made_up(), **changes)

    return start


def test_an_interpreter_is_kept_and_not_asked_for_again(root: Path, start: Start) -> None:
    first, error = start().talk()
    assert first == [install.SEND, install.GO, f"hello {sys.executable} b''"], error
    kept = root / "interpreters" / DIGEST
    assert os.listdir(kept.parent) == [DIGEST]
    assert kept.stat().st_mode & 0o777 == 0o555
    assert [path.suffix for path in (kept / "lib" / "__pycache__").iterdir()] == [".pyc"]
    assert start().talk()[0] == [install.GO, first[-1]]
    files = [path for path in kept.rglob("*") if path.is_file() and path.name != "size.json"]
    taken = sum(path.stat().st_blocks * 512 for path in files)
    assert json.loads((kept / "size.json").read_text()) == taken


def test_what_lacks_bytecode_beside_what_has_it_is_compiled(root: Path, start: Start) -> None:
    packed = made_up(**{"lib/__pycache__/other.pyc": b""})
    assert start(packed=packed).talk()[0][:2] == [install.SEND, install.GO]
    cached = root / "interpreters" / DIGEST / "lib" / "__pycache__"
    assert len(list(cached.iterdir())) == 2
    assert cached.stat().st_mode & 0o777 == 0o555


def test_two_at_once_end_with_one(root: Path, start: Start) -> None:
    nodes = [start(), start()]
    for node in nodes:
        said, error = node.talk()
        assert said[-1].startswith("hello"), error
    assert os.listdir(root / "interpreters") == [DIGEST]


def test_one_that_does_not_run_any_more_is_sent_again(root: Path, start: Start) -> None:
    assert start().talk()[0][0] == install.SEND
    program = root / "interpreters" / DIGEST / PROGRAM
    program.chmod(0o755)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert start().talk()[0][:2] == [install.SEND, install.GO]
    assert os.listdir(root / "interpreters") == [DIGEST]


def test_what_arrives_damaged_is_not_kept(root: Path, start: Start) -> None:
    damaged = bytearray(made_up())
    damaged[len(damaged) // 2] ^= 1
    said, error = start().talk(bytes(damaged))
    assert said == [install.SEND]
    assert "did not arrive as it was sent" in error
    said, error = start().talk(made_up()[:-1])
    assert said == [install.SEND]
    assert "no room in" in error
    assert os.listdir(root / "interpreters") == []


def tools(folder: Path, *names: str) -> str:
    """Return a PATH of these programs alone."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


NEEDED = ("chmod", "head", "ls", "mkdir", "mv", "rm", "wc")


def pythons() -> list[str]:
    """Return this interpreter, and the oldest and newest that pyenv has and that can unpack."""
    there = Path.home() / ".pyenv" / "versions"
    found = sorted(
        (tuple(map(int, folder.name.split("."))), str(folder / "bin" / "python3"))
        for folder in there.glob("3.*.*")
        if folder.name.replace(".", "").isdigit()
    )
    able = [path for version, path in found if version >= (3, 6)]
    return list(dict.fromkeys([sys.executable, *able[:1], *able[-1:]]))


def test_any_python_unpacks_where_there_is_no_tar(root: Path, start: Start, tmp_path: Path) -> None:
    path = tools(tmp_path / "tools", *NEEDED)
    said, error = start(path).talk()
    assert said == [install.SEND]
    assert "neither tar with gzip nor Python 3.6" in error
    for python in pythons():
        assert start(path, unpacker=python).talk()[0][1] == install.GO
        remove_tree(str(root / "interpreters"))


def test_what_arrives_damaged_is_seen_without_sha256sum(
    root: Path, start: Start, tmp_path: Path
) -> None:
    path = tools(tmp_path / "tools", *NEEDED, "tar", "gzip")
    said, error = start(path, sha256="0" * 64).talk()
    assert said == [install.SEND]
    assert "it did not arrive as it was sent" in error
    assert os.listdir(root / "interpreters") == []


def test_dd_serves_where_head_counts_no_bytes(start: Start, tmp_path: Path) -> None:
    path = tools(tmp_path / "tools", *(set(NEEDED) - {"head"}), "dd", "tar", "gzip")
    assert start(path).talk()[0][:2] == [install.SEND, install.GO]


def test_a_folder_that_others_may_write_to_is_refused(root: Path, start: Start) -> None:
    root.chmod(0o777)
    node = start()
    said, error = node.talk()
    assert said == []
    assert "is not a folder of this user alone; name another folder with scratch=" in error
    assert node.process.returncode == bootstrap.NO_PYTHON
