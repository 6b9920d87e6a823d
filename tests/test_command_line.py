"""The command line, as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import afarm
from afarm.__main__ import main
from afarm.commands import hosts
from afarm.commands.check import Finding, describe_findings
from afarm.commands.map import UsageError, load_function, read_inputs, to_json
from tests.sshd import Sshd

FUNCTIONS = """
import os

def double(text):
    return 2 * int(text)

def tell(item):
    print("printed by the function")
    return {"got": item, "pid": os.getpid()}

def fail_on_three(text):
    if text == "3":
        raise ValueError("three is not for me")
    return int(text)

def opaque(text):
    return object()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "numbers.txt").write_text("1\n2\n\n3\n4\n")
    return tmp_path


def afarm_command(
    folder: Path, *arguments: str, stdin: str = "", hosts: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "afarm", *arguments],
        cwd=folder,
        input=stdin,
        env={
            **os.environ,
            hosts_variable(): hosts,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def hosts_variable() -> str:
    return hosts.VARIABLE


# --- which nodes


def test_without_a_word_it_is_this_machine() -> None:
    assert hosts.choose_nodes([], {}) is None


def test_the_command_line_goes_before_the_environment() -> None:
    environ = {hosts.VARIABLE: "lab3"}
    assert hosts.choose_nodes(["lab1,alice@lab2:2222"], environ) == ["lab1", "alice@lab2:2222"]
    assert hosts.choose_nodes([], environ) == ["lab3"]


def test_a_file_of_nodes_is_read(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("lab1  # the old one\nalice@lab2:2222\n")
    names = [node.name for node in hosts.choose_nodes([str(tmp_path / "hosts")], {}) or []]
    assert names == [node.name for node in afarm.load_nodes(tmp_path / "hosts")]
    assert len(names) == 2


# --- usage


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert "COMMAND" in usage_error(capsys)
    assert "invalid choice" in usage_error(capsys, "dance")
    assert "must be 1 or more" in usage_error(capsys, "demo", "--calls", "0")
    assert "'200 MB'" in usage_error(capsys, "map", "m:f", "-", "--memory", "two")
    assert "no module" in usage_error(capsys, "map", "nothing_like_it:f", "-")
    assert "missing.toml" in usage_error(capsys, "check", "missing.toml")


def test_a_function_is_found_by_module_and_name() -> None:
    assert load_function("json:dumps") is json.dumps
    assert load_function("pathlib:Path.cwd") == Path.cwd


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "MODULE|mymodule:myfunction"),
        ("json:nothing", "no function 'nothing'"),
        ("json:__name__", "not a function"),
        ("nothing_like_it:f", "no module 'nothing_like_it'"),
    ],
)
def test_a_function_that_is_not_there_is_named(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_function(name)


def test_results_become_json() -> None:
    numpy = pytest.importorskip("numpy")
    assert to_json({"a": numpy.float64(0.5), "b": numpy.arange(2)}) == '{"a": 0.5, "b": [0, 1]}'
    assert json.loads(to_json(afarm.Resources(cores=2.0)))["cores"] == 2.0
    with pytest.raises(TypeError, match="object has no form in JSON"):
        to_json(object())


async def test_inputs_are_lines_or_json_and_empty_lines_are_none(tmp_path: Path) -> None:
    file = tmp_path / "inputs"
    file.write_text('{"a": 1}\n\n[2]\n')
    assert [item async for item in read_inputs(str(file), as_json=True)] == [{"a": 1}, [2]]
    assert [item async for item in read_inputs(str(file), as_json=False)] == ['{"a": 1}', "[2]"]


async def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    file = tmp_path / "inputs.jsonl"
    file.write_text("1\nnot json\n")
    with pytest.raises(UsageError, match="line 2: not JSON"):
        assert [item async for item in read_inputs(str(file), as_json=True)] == []


def test_findings_are_told_node_by_node() -> None:
    found = [
        Finding("lab1", "", {"Python": "CPython 3.11.7", "upload": "90.0 MiB/s"}),
        Finding("lab2", "lab2: refused\ntry this", {}),
    ]
    assert describe_findings(found).splitlines() == [
        "lab1: ready",
        "  Python      CPython 3.11.7",
        "  upload      90.0 MiB/s",
        "lab2: cannot be used",
        "  lab2: refused",
        "  try this",
    ]


# --- for real


@pytest.mark.slow
@pytest.mark.integration
def test_map_writes_a_line_of_json_for_each_input_in_order(folder: Path) -> None:
    done = afarm_command(folder, "map", "functions:double", "numbers.txt")
    assert (done.returncode, done.stdout) == (0, "2\n4\n6\n8\n"), done.stderr


@pytest.mark.slow
@pytest.mark.integration
def test_map_tells_of_each_failure_and_ends_with_1(folder: Path) -> None:
    done = afarm_command(folder, "map", "functions:fail_on_three", "-", stdin="1\n3\n5\n")
    assert (done.returncode, done.stdout) == (1, "1\nnull\n5\n"), done.stderr
    assert "input 2: ValueError: three is not for me" in done.stderr


@pytest.mark.slow
@pytest.mark.integration
def test_map_takes_json_and_writes_to_a_file(folder: Path) -> None:
    (folder / "items.jsonl").write_text('{"a": [1, 2]}\n"text"\n')
    done = afarm_command(folder, "map", "functions:tell", "items.jsonl", "--out", "results")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    results = [json.loads(line) for line in (folder / "results").read_text().splitlines()]
    assert [result["got"] for result in results] == [{"a": [1, 2]}, "text"]
    assert all(result["pid"] != os.getpid() for result in results)


@pytest.mark.slow
@pytest.mark.integration
def test_a_result_without_a_form_in_json_is_a_failure(folder: Path) -> None:
    done = afarm_command(folder, "map", "functions:opaque", "-", stdin="1\n")
    assert (done.returncode, done.stdout) == (1, "null\n"), done.stderr
    assert "object has no form in JSON" in done.stderr


@pytest.mark.slow
@pytest.mark.integration
def test_check_says_what_this_machine_has(folder: Path) -> None:
    done = afarm_command(folder, "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("local: ready\n")
    for what in ("Python", "capacity", "monitor     process, tree", "round trip", "upload"):
        assert f"\n  {what}" in done.stdout
    assert f"CPython {sys.version_info.major}.{sys.version_info.minor}" in done.stdout


@pytest.mark.slow
@pytest.mark.integration
def test_check_says_what_sets_the_capacity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "here", "SLURM_CPUS_ON_NODE": "1",
        "SLURM_MEM_PER_NODE": "512",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = afarm_command(folder, "check")
    said = "1 core (SLURM_CPUS_ON_NODE), 512.0 MiB of memory (SLURM_MEM_PER_NODE)"
    assert f"\n  capacity    {said}, " in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.integration
def test_check_says_why_a_node_cannot_be_used_and_ends_with_1(folder: Path) -> None:
    done = afarm_command(folder, "check", "nobody@127.0.0.1:1", "local")
    assert done.returncode == 1
    assert "nobody@127.0.0.1:1: cannot be used\n" in done.stdout
    assert "local: ready\n" in done.stdout


@pytest.mark.slow
@pytest.mark.integration
def test_check_opens_a_node_over_ssh(folder: Path, sshd: Sshd) -> None:
    (folder / "farm.toml").write_text(
        f'[[node]]\nhost = "sshd"\nconfig = "{sshd.config}"\nscratch = "{folder}/scratch"\n'
    )
    done = afarm_command(folder, "check", "farm.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "host key    known and unchanged\n" in done.stdout
    assert f"cache       {folder}/scratch" in done.stdout


@pytest.mark.slow
@pytest.mark.integration
def test_no_node_at_all_ends_with_1_and_the_reason(folder: Path) -> None:
    done = afarm_command(folder, "map", "functions:double", "-", stdin="1\n", hosts="127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1 port 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.integration
def test_the_demonstration_runs_and_ends_with_its_tables(folder: Path) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("sklearn")
    done = afarm_command(folder, "demo", "--quick", "--calls", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of 20 calls" in done.stdout
    for name in ("descriptors", "conformers", "neighbours", "texture", "classify", "local"):
        assert f"\n{name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["map", "functions:double", "numbers.txt", "--nodes", "./"], "cannot read the nodes in ."),
        (["check", "--nodes", "missing.toml"], "cannot read the nodes in missing.toml: No such"),
        (["map", "functions:double", "numbers.txt", "--out", "."], "cannot write ."),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_wrong_usage(
    folder: Path, arguments: list[str], said: str
) -> None:
    done = afarm_command(folder, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- records


def test_a_record_is_watched_and_reported(folder: Path) -> None:
    async def run() -> None:
        async with afarm.Farm("local", record=folder / "farm.db", progress=False) as farm:
            assert await farm.submit(abs, -3) == 3

    asyncio.run(run())
    seen = afarm_command(folder, "top", "farm.db")
    assert seen.returncode == 0, seen.stderr
    assert "1 done" in seen.stdout
    made = afarm_command(folder, "report", "farm.db")
    assert made.stdout == "farm.db.html\n"
    assert "builtins.abs" in (folder / "farm.db.html").read_text()
    missing = afarm_command(folder, "report", "other.db")
    assert missing.returncode == 1
    assert "there is no record other.db" in missing.stderr
    unwritable = afarm_command(folder, "report", "farm.db", "--out", "nowhere/page.html")
    assert unwritable.returncode == 1
    assert "cannot write nowhere/page.html" in unwritable.stderr


def test_deps_prints_what_travels_and_why(folder: Path) -> None:
    (folder / "needy.py").write_text(
        "import functions\ndef f():\n  import mdurl\n  try:\n    import not_there\n"
        "  except ImportError: pass\n  return functions\n"
        "def g():\n  import not_there_at_all\n"
    )

    done = afarm_command(folder, "deps", "needy:f", "--packages", "numpy", "--files")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("needy:f: ")
    rows = {line.split()[0]: line for line in lines[3:7]}
    assert rows["numpy"].endswith("  packages=")
    assert rows["mdurl"].endswith("  mdurl, seen in f (needy.py:3)")
    assert rows["functions.py"].endswith("  functions, seen in f (needy.py:7)")
    assert str(folder / "needy.py") in rows["needy.py"]
    assert any(line.startswith("stays here of numpy: ") for line in lines)
    assert "not needed, not_there is not installed here, seen in f (needy.py:5)" in lines
    size = (folder / "needy.py").stat().st_size
    assert f"{size:>12}  source/needy.py" in lines


def test_deps_says_what_is_missing_and_prints_json(folder: Path) -> None:
    (folder / "needy.py").write_text("def g():\n  import not_there_at_all\n")

    done = afarm_command(folder, "deps", "needy:g")
    as_json = afarm_command(folder, "deps", "needy:g", "--json")
    nothing = afarm_command(folder, "deps", "os:getcwd")

    assert (done.returncode, as_json.returncode, nothing.returncode) == (1, 1, 0)
    assert "MISSING: not_there_at_all is not installed here, seen in g (needy.py:2)" in done.stdout
    found = json.loads(as_json.stdout)
    assert found["missing"][0]["seen"] == "g (needy.py:2)"
    assert found["local"][0]["files"] == ["needy.py"]
    assert nothing.stdout == "os:getcwd needs nothing but the standard library\n"
    wrong = afarm_command(folder, "deps", "needy:g", "--packages", "not-there-at-all")
    assert wrong.returncode == 1
    assert "no such distribution" in wrong.stderr
