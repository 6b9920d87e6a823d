"""The bootstrap: what is streamed, what it does there, and the command that starts it."""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import shutil
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from types import CodeType

import pytest

from afarm.transport import bootstrap

HELLO = zlib.compress(b"import os, sys\nprint('hello', os.read(0, 100), sys.argv[1:])\n")


def run_streamed(script: str, *, path: str = "") -> str:
    """Run a script in a bare interpreter that has got the bootstrap, and return its output."""
    payload = bootstrap.payload()
    program = zlib.decompress(payload)
    start = b"\nstart()\n\0"
    assert program.count(start) == 1
    code = textwrap.dedent(script).encode()
    changed = zlib.compress(program.replace(start, b"\n" + code + b"\n\0"))
    done = subprocess.run(
        [sys.executable, *bootstrap.interpreter_arguments(len(changed))],
        input=changed,
        capture_output=True,
        env={**os.environ, "SOME_PATH": path},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def imports_of(name: str) -> set[str]:
    """Return the modules that one module imports, anywhere in it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def import_closure(roots: set[str], universe: set[str]) -> set[str]:
    """Return what importing ``roots`` may import of ``universe``, packages included."""
    seen: set[str] = set()
    todo = set(roots)
    while todo:
        name = todo.pop()
        seen.add(name)
        wanted = imports_of(name) | {name.rpartition(".")[0]}
        todo |= {each for each in wanted & universe if each not in seen}
    return seen


def own_modules() -> set[str]:
    """Return every module of the package, by walking its folder."""
    folder = Path(bootstrap.__file__).parents[1]
    files = (path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py"))
    return {".".join(file.parts).removesuffix(".__init__") for file in files}


def test_what_is_streamed_is_what_the_agent_imports_and_nothing_else() -> None:
    universe = own_modules() - {"afarm"}
    agent = {name for name in universe if name.startswith("afarm._agent")}
    closure = import_closure(agent, universe)
    streamed = {name for name in bootstrap.streamed_modules() if name.startswith("afarm.")}
    assert closure == streamed


def test_what_is_streamed_stays_small() -> None:
    # mitogen's core is 19 KB and execnet's 14 KB, without monitor, store and bytecode.
    assert len(bootstrap.payload()) < 400_000


def test_streamed_modules_import_on_a_bare_interpreter() -> None:
    output = run_streamed(
        """
        import afarm, afarm.resources, afarm._wire.frames, sys
        from afarm import errors
        print(afarm.__path__, afarm.resources.parse_bytes("1 KiB"), errors.FarmError.__module__)
        print(sorted(name for name in sys.modules if name.startswith("cloudpickle")))
        import cloudpickle
        print(cloudpickle.loads(cloudpickle.dumps(lambda: 42))())
        """
    )
    assert output.splitlines() == ["[] 1024 afarm.errors", "[]", "42"]


def test_tracebacks_of_streamed_modules_name_the_farms_own_files() -> None:
    output = run_streamed(
        """
        import traceback
        from afarm.resources import parse_bytes
        try:
            parse_bytes("many")
        except ValueError:
            print(traceback.format_exc())
        """
    )
    assert f'File "{Path(bootstrap.__file__).parents[1] / "resources.py"}", line ' in output


def test_both_payloads_hold_the_same() -> None:
    def content(payload: bytes) -> tuple[bytes, dict[str, tuple[bool, str, CodeType]]]:
        program, modules = zlib.decompress(payload).split(b"\0", 1)
        # The codes, not their bytes: what marshal writes depends on how often a string is
        # referred to at that moment.
        return program, {
            name: (is_package, file, marshal.loads(code))
            for name, (is_package, file, code) in marshal.loads(modules).items()
        }

    assert content(bootstrap.payload()) == content(bootstrap.near_payload())


def test_further_processes_start_from_what_the_package_keeps() -> None:
    output = run_streamed(
        """
        import afarm, subprocess, sys
        if len(sys.argv) > 1:
            print(sys.argv[1], sys.flags.isolated, afarm.__path__)
        else:
            line = afarm.__first_line__
            assert str(len(afarm.__bootstrap__)) in line
            subprocess.run(
                [sys.executable, "-s", "-P", "-c", line, "again"],
                input=afarm.__bootstrap__, check=True)
        """
    )
    assert output == "again 0 []"


def test_names_that_are_not_streamed_come_from_the_package_where_there_is_one() -> None:
    output = run_streamed(
        """
        import os, sys
        import afarm.resources as before
        sys.path[:0] = os.environ["SOME_PATH"].split(os.pathsep)
        import afarm
        from afarm.transport.base import Receiver
        import afarm.resources as after
        print(Receiver.__module__, before is after, afarm.__file__ is not None)
        """,
        path=os.pathsep.join([str(Path(bootstrap.__file__).parents[2]), *filter(None, sys.path)]),
    )
    assert output == "afarm.transport.base True True"


def test_names_that_are_nowhere_are_missing_in_the_usual_way() -> None:
    output = run_streamed(
        """
        import afarm
        try:
            afarm.Farm
        except AttributeError as exc:
            print(exc)
        try:
            import afarm.farm
        except ModuleNotFoundError as exc:
            print(exc)
        """
    )
    assert output.splitlines() == [
        "module 'afarm' has no attribute 'Farm'",
        "No module named 'afarm.farm'",
    ]


def test_another_minor_version_is_refused_in_one_line() -> None:
    payload = bootstrap.payload()
    program = zlib.decompress(payload).replace(
        f"install(b, d, '{bootstrap.TAG}')".encode(), b"install(b, d, 'cpython-27')"
    )
    changed = zlib.compress(program)
    done = subprocess.run(
        [sys.executable, *bootstrap.interpreter_arguments(len(changed))],
        input=changed,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == bootstrap.NO_PYTHON
    assert b"the farm's Python is cpython-27" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_first_line_reads_the_payload_and_not_one_byte_more() -> None:
    for rest in (b"", b"x", b"rest" * 20):
        done = subprocess.run(
            [sys.executable, *bootstrap.interpreter_arguments(len(HELLO)), "role"],
            input=HELLO + rest,
            capture_output=True,
            timeout=60,
        )
        assert done.stdout == f"hello {rest!r} ['role']\n".encode()


SHELLS = ["sh", "dash", "bash", "zsh", "tcsh", "csh", "fish", "ksh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_passes_through_a_login_shell_unchanged(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    for python in (None, sys.executable):
        command = bootstrap.shell_command(
            python, length=len(HELLO), scratch="~/with space", helped=len(HELLO)
        )
        done = subprocess.run(
            [shell, "-c", command], input=HELLO + b"rest", capture_output=True, timeout=60
        )
        assert done.stdout == b"hello b'rest' []\n", done.stderr
        assert done.stderr == b""


def start_with(path: Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing but ``path`` in PATH."""
    done = subprocess.run(
        ["/bin/sh", "-c", bootstrap.shell_command(length=len(HELLO))],
        input=HELLO,
        capture_output=True,
        env={"PATH": str(path), "HOME": str(home or "/nowhere")},
        timeout=60,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


NAME = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_python_of_another_name_but_the_right_version_is_found(tmp_path: Path) -> None:
    executable(tmp_path / "python3", f'exec {sys.executable} "$@"')
    assert start_with(tmp_path).stdout == "hello b'' []\n"


def test_a_broken_shim_is_passed_over(tmp_path: Path) -> None:
    executable(tmp_path / NAME, "echo 'pyenv: no such version' >&2; exit 127")
    executable(tmp_path / "python3", "cat >/dev/null; exit 0")
    executable(tmp_path / "python", f'exec {sys.executable} "$@"')
    assert start_with(tmp_path).stdout == "hello b'' []\n"


def test_a_python_that_is_not_in_the_path_is_found_in_the_home(tmp_path: Path) -> None:
    executable(
        tmp_path / f".pyenv/versions/3.{sys.version_info[1]}.1/bin/{NAME}",
        f'exec {sys.executable} "$@"',
    )
    assert start_with(tmp_path / "empty", home=tmp_path).stdout == "hello b'' []\n"


def test_an_interpreter_that_was_sent_before_is_taken_from_a_folder_of_ones_own(
    tmp_path: Path,
) -> None:
    root, log, tools = tmp_path / "my cache", tmp_path / "log", tmp_path / "tools"
    program = f'echo used >>"{log}"; exec {sys.executable} "$@"'
    executable(root / "interpreters/abc/bin" / NAME, program)
    for name in "id", "ls":
        executable(tools / name, f'exec {shutil.which(name)} "$@"')
    if start_with(tools).returncode == 0:
        pytest.skip("this machine has the right Python at a usual place")

    def start() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/bin/sh", "-c", bootstrap.shell_command(length=len(HELLO), scratch=str(root))],
            input=HELLO,
            capture_output=True,
            env={"PATH": str(tools), "HOME": "/nowhere"},
            timeout=60,
        )

    root.chmod(0o700)
    assert start().stdout == b"hello b'' []\n"
    log.unlink()
    root.chmod(0o770)
    assert start().returncode == bootstrap.NO_PYTHON
    assert not log.exists()  # what others may have put there is not even asked for its version


def test_where_no_python_fits_one_line_names_what_was_found(tmp_path: Path) -> None:
    executable(tmp_path / "python3", "echo cpython-36 3.6.8 /usr/bin/python3")
    executable(tmp_path / "python", "exit 1")
    done = start_with(tmp_path)
    if "hello" in done.stdout:
        pytest.skip("this machine has the right Python at a usual place")
    assert done.returncode == bootstrap.NO_PYTHON
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path}/python3 (cpython-36 3.6.8 /usr/bin/python3)" in done.stderr
    assert f"{tmp_path}/python (unusable)" in done.stderr


@pytest.mark.parametrize(
    "python", ["", "it's", "a\\b", "$(reboot)", "`id`", 'a"b', "what!", "a\nb"]
)
def test_a_path_that_no_shell_would_pass_on_is_refused(python: str) -> None:
    with pytest.raises(ValueError, match="every shell"):
        bootstrap.shell_command(python, length=1)


def test_a_python_in_the_home_there_is_found_by_its_tilde(tmp_path: Path) -> None:
    executable(tmp_path / "my python/bin/python", f'exec {sys.executable} "$@"')
    done = subprocess.run(
        ["/bin/sh", "-c", bootstrap.shell_command("~/my python/bin/python", length=len(HELLO))],
        input=HELLO,
        capture_output=True,
        env={"PATH": "", "HOME": str(tmp_path)},
        timeout=60,
    )
    assert done.stdout == b"hello b'' []\n"


def test_importing_the_library_imports_neither_asyncssh_nor_what_analyses_software() -> None:
    script = (
        "import sys, afarm, afarm.transport.ssh, afarm.transport.hosts\n"
        "print([name for name in sys.modules "
        "if name.startswith(('asyncssh', 'afarm.environments'))])"
    )
    root = Path(bootstrap.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])},
        timeout=60,
    )
    assert done.stdout == "[]\n", done.stderr
