"""The same content, the same bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from afarm.environments.bundle import pack
from afarm.environments.files import SourceTree, source_tree
from afarm.environments.installed import Installed
from afarm.errors import DependencyError
from tests.environments.made_up import Install, Project

SCRIPT = "#!/home/me/venv/bin/python3.11\nimport tool\ntool.main()\n"
LONG_SCRIPT = (
    "#!/bin/sh\n'''exec' /a/very/long/path/python \"$0\" \"$@\"\n' '''\nimport tool\ntool.main()\n"
)


def tree(project: Project, name: str = "own") -> SourceTree:
    return source_tree(str(project.folder / name), name)


def content(path: Path) -> dict[str, tuple[bytes, int, float]]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = (file.read(), member.mode, member.mtime)
        return found


def test_a_bundle_is_named_by_its_bytes(project: Project, tmp_path: Path) -> None:
    project.write({"own/__init__.py": "x = 1\n", "own/data/table.txt": "1 2 3"})

    bundle = pack(tree(project), tmp_path / "cache")

    data = bundle.path.read_bytes()
    assert bundle.digest == hashlib.sha256(data).hexdigest()
    assert bundle.size == len(data)
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
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.digest
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
    found = content(first.path)
    assert found["prefix/bin/tool"][0] == b"#!python\nimport tool\ntool.main()\n"
    assert "site-packages/tool-1.0.dist-info/INSTALLER" not in found
    assert found["site-packages/tool-1.0.dist-info/RECORD"][0].splitlines() == [
        b"../../../bin/tool,,",
        b"tool-1.0.dist-info/METADATA,sha256=x,46",
        b"tool-1.0.dist-info/RECORD,,",
        b"tool-1.0.dist-info/entry_points.txt,sha256=x,0",
        b"tool.py,sha256=x,0",
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
