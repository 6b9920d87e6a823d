"""The same content, the same bytes."""

from __future__ import annotations

import hashlib
import os
import py_compile
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from afarm._agent.unpack import Unpacker
from afarm.environments.bundle import pack
from afarm.environments.files import SourceTree, source_tree
from afarm.environments.installed import Installed
from afarm.errors import DependencyError
from tests.environments.made_up import Install, Project, hashed

SCRIPT = "#!/home/me/venv/bin/python3.11\nimport tool\ntool.main()\n"
LONG_SCRIPT = (
    "#!/bin/sh\n'''exec' /a/very/long/path/python \"$0\" \"$@\"\n' '''\nimport tool\ntool.main()\n"
)


def tree(project: Project, name: str = "own") -> SourceTree:
    return source_tree(str(project.folder / name), name)


def content(path: Path) -> dict[str, tuple[bytes, int, float]]:
    """Return the files of a bundle, in its order, without its manifest."""
    with tarfile.open(path) as archive:
        assert archive.getnames()[0] == "manifest"
        found = {}
        for member in archive.getmembers()[1:]:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = (file.read(), member.mode, member.mtime)
        return found


def test_a_bundle_is_named_by_its_content(project: Project, tmp_path: Path) -> None:
    project.write({"own/__init__.py": "x = 1\n", "own/data/table.txt": "1 2 3"})

    bundle = pack(tree(project), tmp_path / "cache")

    lines = [f"afarm-bundle 2 {sys.implementation.cache_tag}\n"]
    lines += [
        f"{hashlib.sha256(data).hexdigest()} - {name}\n"
        for name, (data, _, _) in content(bundle.path).items()
    ]
    named = "".join([lines[0], *sorted(lines[1:])])
    assert bundle.digest == hashlib.sha256(named.encode()).hexdigest()
    assert "".join(lines).encode() in bundle.path.read_bytes()
    assert bundle.size == bundle.path.stat().st_size
    assert (bundle.kind, bundle.name, bundle.native) == ("source", "own", False)
    assert content(bundle.path) == {
        "source/own/__init__.py": (b"x = 1\n", 0o644, 1_000_000_000),
        "source/own/data/table.txt": (b"1 2 3", 0o644, 1_000_000_000),
    }


def test_the_same_content_elsewhere_and_later_gives_the_same_bytes(
    project: Project, tmp_path: Path
) -> None:
    project.write({"own/b.py": "b", "own/a.py": "a", "own/c/d.py": "d"})
    first = pack(tree(project), tmp_path / "one")
    os.rename(project.folder / "own", tmp_path / "own")
    os.utime(tmp_path / "own" / "a.py", (1, 1))
    (tmp_path / "own" / "b.py").chmod(0o600)

    second = pack(source_tree(str(tmp_path / "own"), "own"), tmp_path / "two")

    assert second.digest == first.digest
    assert second.path.read_bytes() == first.path.read_bytes()


def test_another_content_or_mode_gives_another_digest(project: Project, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    project.write({"own/a.py": "a"})
    first = pack(tree(project), cache)
    project.write({"own/a.py": "b"})
    second = pack(tree(project), cache)
    (project.folder / "own" / "a.py").chmod(0o755)
    third = pack(tree(project), cache)

    assert len({first.digest, second.digest, third.digest}) == 3


def test_a_bundle_is_packed_once(project: Project, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    project.write({"own/a.py": "a"})
    first = pack(tree(project), cache)
    packed = first.path.stat().st_ino

    assert pack(tree(project), cache) == first
    assert first.path.stat().st_ino == packed
    first.path.unlink()
    assert pack(tree(project), cache) == first
    assert first.path.exists()


def test_a_bundle_cut_off_by_a_full_disk_is_packed_again(project: Project, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    project.write({"own/a.py": "a"})
    first = pack(tree(project), cache)
    os.truncate(first.path, 100)
    for index in cache.glob("*.json"):
        index.write_text("{")

    again = pack(tree(project), cache)

    assert again == first
    assert set(content(first.path)) == {"source/own/a.py"}
    assert not list(cache.glob(".*"))


def test_long_and_foreign_names_survive(project: Project, tmp_path: Path) -> None:
    name = "own/" + "d" * 120 + "/" + "é" * 90 + ".py"
    project.write({name: "x"})

    assert set(content(pack(tree(project), tmp_path / "cache").path)) == {f"source/{name}"}


def test_scripts_and_records_do_not_depend_on_where_they_were_installed(
    install: Install, tmp_path: Path
) -> None:
    site = install(
        "tool",
        {"tool.py": "", "tool-1.0.dist-info/entry_points.txt": "", "../../../bin/tool": SCRIPT},
    )
    first = pack(Installed([str(site)]).describe("tool"), tmp_path / "cache")
    (site / "../../../bin/tool").write_text(LONG_SCRIPT)
    record = site / "tool-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "__pycache__/tool.cpython-311.pyc,,\n")
    second = pack(Installed([str(site)]).describe("tool"), tmp_path / "cache")

    assert first.digest == second.digest
    metadata = (site / "tool-1.0.dist-info" / "METADATA").read_text()
    found = content(first.path)
    assert found["prefix/bin/tool"][0] == b"#!python\nimport tool\ntool.main()\n"
    assert "site-packages/tool-1.0.dist-info/INSTALLER" not in found
    assert found["site-packages/tool-1.0.dist-info/RECORD"][0].splitlines() == [
        b"../../../bin/tool,,",
        f"tool-1.0.dist-info/METADATA,sha256={hashed(metadata)},46".encode(),
        b"tool-1.0.dist-info/RECORD,,",
        f"tool-1.0.dist-info/entry_points.txt,sha256={hashed('')},0".encode(),
        f"tool.py,sha256={hashed('')},0".encode(),
    ]


def test_a_file_that_is_gone_is_an_error_that_names_the_tree(
    project: Project, tmp_path: Path
) -> None:
    project.write({"own/a.py": "a"})
    found = tree(project)
    (project.folder / "own" / "a.py").unlink()

    with pytest.raises(DependencyError, match=r"cannot pack own into .*a\.py"):
        pack(found, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_way_out(project: Project, tmp_path: Path) -> None:
    project.write({"own/a.py": "a"})
    (tmp_path / "file").write_text("")

    with pytest.raises(DependencyError, match="AFARM_CACHE"):
        pack(tree(project), tmp_path / "file" / "cache")


def test_what_was_used_least_recently_goes_when_the_cache_is_full(
    project: Project, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    bundles = []
    for number in range(3):
        project.write({f"own{number}/a.py": str(number)})
        bundles.append(pack(tree(project, f"own{number}"), cache, cap=25_000))
        os.utime(bundles[-1].path, (1_000 + number, 1_000 + number))
    project.write({"own3/a.py": ""})
    pack(tree(project, "own3"), cache, cap=25_000)

    assert [bundle.path.exists() for bundle in bundles] == [False, False, True]


def test_what_importing_reads_comes_first_in_its_order(project: Project, tmp_path: Path) -> None:
    project.write({f"own/{name}.py": name * 600 for name in "abcde"})
    first = [str(project.folder / "own" / name) for name in ("d.py", "gone.py", "b.py")]

    bundle = pack(tree(project), tmp_path / "one", first=first)
    plain = pack(tree(project), tmp_path / "two")

    assert [name[-4] for name in content(bundle.path)] == ["d", "b", "a", "c", "e"]
    assert (bundle.digest, bundle.size) == (plain.digest, plain.size)
    with tarfile.open(bundle.path) as archive:
        third = archive.getmembers()[3]
    assert third.name == "source/own/a.py"
    assert (bundle.head, plain.head) == (third.offset, 0)


@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode))
def test_valid_bytecode_follows_its_source_and_needs_no_time_stamp(
    project: Project, tmp_path: Path, mode: py_compile.PycInvalidationMode
) -> None:
    project.write({"own/a.py": "x = 1\n", "own/b.py": "y = 1\n", "own/tests/c.py": "z = 1\n"})
    for name in ("a.py", "tests/c.py"):
        py_compile.compile(str(project.folder / "own" / name), invalidation_mode=mode)
    plain = pack(source_tree(str(project.folder / "own"), "own"), tmp_path / "cache")
    tag = sys.implementation.cache_tag

    found = content(plain.path)

    compiled = f"source/own/__pycache__/a.{tag}.pyc"
    assert list(found) == [
        "source/own/a.py", compiled, "source/own/b.py", "source/own/tests/c.py"
    ]  # fmt: skip
    assert found[compiled][0][4:8] == b"\1\0\0\0"
    (tmp_path / "there").mkdir()
    unpacker = Unpacker(str(tmp_path / "there"), plain.digest)
    unpacker.feed(plain.path.read_bytes())
    unpacker.close()
    source = tmp_path / "there" / "source" / "own" / "a.py"
    source.chmod(0o644)
    source.write_text("x = 2\n")  # which nobody looks at
    done = subprocess.run(
        [sys.executable, "-c", "import own.a; print(own.a.x, own.a.__cached__, end='')"],
        cwd=source.parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"1 {source.parent / '__pycache__' / f'a.{tag}.pyc'}"


@pytest.mark.parametrize("what", ["older source", "other magic", "cut off"])
def test_bytecode_of_something_else_is_left_out(
    project: Project, tmp_path: Path, what: str
) -> None:
    project.write({"own/a.py": "x = 1\n"})
    compiled = Path(py_compile.compile(str(project.folder / "own" / "a.py")) or "")
    if what == "older source":
        project.write({"own/a.py": "x = 11\n"})
    elif what == "other magic":
        compiled.write_bytes(b"\0\0\r\n" + compiled.read_bytes()[4:])
    else:
        os.truncate(compiled, 12)

    assert set(content(pack(tree(project), tmp_path / "cache").path)) == {"source/own/a.py"}


def test_bytecode_does_not_count_in_the_digest(project: Project, tmp_path: Path) -> None:
    project.write({"own/a.py": "x = 1\n"})
    without = pack(tree(project), tmp_path / "one")
    py_compile.compile(str(project.folder / "own" / "a.py"))
    with_bytecode = pack(tree(project), tmp_path / "two")

    assert without.digest == with_bytecode.digest
    assert len(content(without.path)) < len(content(with_bytecode.path))


def test_machine_code_is_named_by_what_it_is_for(project: Project, tmp_path: Path) -> None:
    project.write({"own/a.py": "", "fast/a.so": ""})

    pure, native = (pack(tree(project, name), tmp_path / "cache") for name in ("own", "fast"))

    assert sys.implementation.cache_tag.encode() in pure.path.read_bytes()[:2048]
    assert os.uname().machine.encode() in native.path.read_bytes()[:2048]
    assert os.uname().machine.encode() not in pure.path.read_bytes()[:2048]


def test_a_file_that_is_not_what_was_installed_is_told_and_packed(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = install("tool", {"tool.py": "x = 1\n", "same.py": "y = 1\n"})
    (site / "tool.py").write_text("x = 2\n")

    bundle = pack(Installed([str(site)]).describe("tool"), tmp_path / "cache")

    assert content(bundle.path)["site-packages/tool.py"][0] == b"x = 2\n"
    assert [record.getMessage() for record in caplog.records] == [
        "tool 1.0 is not as it was installed, and travels as it is: site-packages/tool.py "
        "changed or gone"
    ]
