"""The node's store: whole or not at all, shared, held while it is used, bounded."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afarm._agent import build, leases, store
from afarm._agent.build import remove_tree
from afarm._agent.cache import StoreError, default_root, explain
from afarm._agent.leases import open_shared
from afarm._agent.store import Store
from tests.agent.made_up_bundles import PACKAGE, bundle, put, run


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "cache"
    yield str(folder)
    remove_tree(str(folder))  # read-only folders: pytest could not as an ordinary user


@pytest.fixture
def kept(root: str) -> Iterator[Store]:
    opened = Store(root)
    yield opened
    opened.close()


def test_a_bundle_is_there_once_it_is_committed(kept: Store) -> None:
    digest, data = bundle(PACKAGE)
    assert not kept.has(digest)
    writer = kept.begin(digest, len(data))
    for at in range(0, len(data), 1000):
        writer.write(memoryview(data)[at : at + 1000])
    assert not kept.has(digest)

    writer.commit()

    assert kept.has(digest)
    path = Path(kept.bundle_path(digest))
    assert (path / "site-packages/pack/inner.py").read_text() == "value = 7\n"
    assert not any(name.startswith(".") for name in os.listdir(path.parent))


def test_what_is_stored_is_read_only(kept: Store) -> None:
    path = Path(kept.bundle_path(put(kept, PACKAGE)))

    for found in path.rglob("*"):
        assert found.stat().st_mode & 0o222 == 0, found


def test_modules_are_compiled_once_for_any_time_stamp_and_place(kept: Store) -> None:
    path = Path(kept.bundle_path(put(kept, PACKAGE)))

    cached = importlib.util.cache_from_source(str(path / "site-packages/pack/inner.py"))
    assert Path(cached).read_bytes()[:8] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"
    compiled = {found.name.split(".")[0] for found in path.rglob("*.pyc")}
    assert compiled == {"__init__", "inner"}


def test_many_modules_are_compiled_by_several_children(kept: Store) -> None:
    text = "x = '" + "y" * 50_000 + "'\n"
    digest = put(kept, {f"source/m/part{number}.py": text for number in range(60)})

    path = Path(kept.bundle_path(digest))
    assert len(list(path.rglob("*.pyc"))) == 60


def test_an_environment_imports_its_bundles_and_nothing_else(kept: Store, tmp_path: Path) -> None:
    first = put(kept, PACKAGE, executable="prefix/bin/tool")
    second = put(kept, {"source/mine.py": "import pack\nvalue = pack.value + 1\n"})
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "pack.py").write_text("raise SystemExit('poisoned')")

    path, notes = kept.environment("e" * 64, [first, second])

    assert path == kept.environment_path("e" * 64)
    assert notes == []
    python = f"{path}/bin/python"
    out = run(python, "import mine, sys; print(mine.value, sys.prefix)", PYTHONUSERBASE=str(poison))
    assert out == f"8 {path}"
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('pytest', 'numpy')])"
    assert run(python, code) == "[None, None]"
    assert subprocess.check_output([f"{path}/bin/tool"], text=True) == f"7 {path}\n"
    assert Path(path, "share/pack/data.txt").read_text() == "data"
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        assert run(f"{path}/bin/{name}", "import sys; print(sys.prefix)") == path


def test_an_environment_is_links_into_the_store(kept: Store) -> None:
    digest = put(kept, PACKAGE)
    path, _ = kept.environment("e" * 64, [digest])

    inner = Path(path, "lib", f"python3.{sys.version_info.minor}", "site-packages/pack/inner.py")
    assert inner.samefile(Path(kept.bundle_path(digest), "site-packages/pack/inner.py"))
    assert inner.parent.stat().st_mode & 0o222 == 0


def test_files_are_copied_where_links_cannot_be_had(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    digest = put(kept, PACKAGE)
    monkeypatch.setattr(os, "link", refuse)
    path, notes = kept.environment("e" * 64, [digest])

    assert "files copied" in notes[0]
    assert run(f"{path}/bin/python", "import pack; print(pack.value)") == "7"


def test_an_environment_of_copies_counts_and_goes(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    first = Store(root)
    digest = put(first, {"site-packages/data.txt": "x" * 300_000})
    with monkeypatch.context() as refusing:
        refusing.setattr(os, "link", refuse)
        copied, _ = first.environment("c" * 64, [digest])
    linked, _ = first.environment("f" * 64, [digest])
    first.close()
    os.utime(copied, (1000, 1000))

    Store(root, cap=10 << 20).close()
    assert os.path.exists(copied)
    second = Store(root, cap=400_000)

    assert not os.path.exists(copied)
    assert os.path.exists(linked)
    assert second.has(digest)
    second.close()


def test_the_first_of_two_bundles_with_one_file_counts(kept: Store) -> None:
    one = put(kept, {"site-packages/space/__init__.py": "value = 1\n"})
    two = put(kept, {"site-packages/space/__init__.py": "", "site-packages/space/b.py": "b = 2\n"})

    path, _ = kept.environment("e" * 64, [one, two])

    assert run(f"{path}/bin/python", "import space.b as b, space; print(space.value, b.b)") == "1 2"


def test_an_environment_is_built_once(kept: Store) -> None:
    digest = put(kept, PACKAGE)
    path, _ = kept.environment("e" * 64, [digest])
    built = os.stat(path).st_ino

    assert kept.environment("e" * 64, [digest]) == (path, [])
    assert os.stat(path).st_ino == built


def test_an_environment_without_one_of_its_bundles_is_refused(kept: Store) -> None:
    with pytest.raises(StoreError, match="aaaaaaaaaaaa is not in the store"):
        kept.environment("e" * 64, ["a" * 64])


def test_another_interpreter_gets_an_environment_of_its_own(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = kept.environment_path("e" * 64)
    monkeypatch.setattr(store, "base_interpreter", lambda: "/opt/other/bin/python3")

    assert kept.environment_path("e" * 64) != here


@pytest.mark.parametrize("damage", ["byte", "cut", "more", "wrong tar"])
def test_what_did_not_arrive_as_it_was_sent_leaves_nothing(kept: Store, damage: str) -> None:
    digest, data = bundle(PACKAGE)
    size = len(data)
    if damage == "byte":
        data = data.replace(b"value = 7", b"value = 8")
    elif damage == "cut":
        data = data[:-100]
    elif damage == "more":
        data += b"\0"
    else:
        data = b"\1" * size
        digest = hashlib.sha256(data).hexdigest()
    writer = kept.begin(digest, size)

    def send() -> None:
        writer.write(data)
        writer.commit()

    with pytest.raises(StoreError, match="did not arrive as it was sent"):
        send()
    assert not kept.has(digest)
    assert os.listdir(Path(kept.root, "store")) == []


def test_of_two_writers_of_one_bundle_the_second_takes_the_firsts(kept: Store) -> None:
    digest, data = bundle(PACKAGE)
    one, two = kept.begin(digest, len(data)), kept.begin(digest, len(data))
    one.write(data)
    two.write(data)
    one.commit()
    stored = os.stat(kept.bundle_path(digest)).st_ino
    two.commit()

    assert os.stat(kept.bundle_path(digest)).st_ino == stored
    assert os.listdir(Path(kept.root, "store")) == [digest]


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_stay(root: str) -> None:
    first = Store(root)
    digest, data = bundle(PACKAGE)
    writer = first.begin(digest, len(data))
    writer.write(data[:2000])
    dead = Path(root, "store", f".{digest}.99999.0")
    (dead / "site-packages").mkdir(parents=True)
    (dead / "site-packages").chmod(0o555)

    second = Store(root)

    assert not dead.exists()
    writer.write(data[2000:])
    writer.commit()
    assert second.has(digest)
    first.close()
    second.close()


@pytest.mark.parametrize("damage", ["emptied", "removed", "no notes"])
def test_a_bundle_that_lost_bytes_is_taken_for_absent(root: str, damage: str) -> None:
    first = Store(root)
    digest = put(first, PACKAGE)
    first.close()
    file = Path(first.bundle_path(digest), "site-packages/pack/inner.py")
    for path in (file, Path(first.bundle_path(digest), "files.json")):
        path.chmod(0o600)
        path.parent.chmod(0o700)
    if damage == "emptied":
        os.truncate(file, 0)
    elif damage == "removed":
        file.unlink()
    else:
        os.truncate(Path(first.bundle_path(digest), "files.json"), 0)

    second = Store(root)

    assert not second.has(digest)
    assert os.listdir(Path(root, "store")) == []
    assert put(second, PACKAGE) == digest
    assert second.has(digest)
    second.close()


def test_what_was_used_least_recently_goes_first_and_what_is_held_stays(root: str) -> None:
    first = Store(root)
    big = "x" * 300_000
    digests = [put(first, {f"source/m{number}.txt": big}) for number in range(3)]
    first.environment("e" * 64, [digests[0]])
    environment = first.environment_path("e" * 64)
    first.close()
    for number, digest in enumerate(digests):
        os.utime(first.bundle_path(digest), (1000 + number, 1000 + number))

    second = Store(root, cap=10 << 20)
    assert second.has(digests[1])
    third = Store(root, cap=400_000)

    assert not third.has(digests[0])
    assert not os.path.exists(environment)
    assert third.has(digests[1])
    assert not third.has(digests[2])
    second.close()
    third.close()


def put_interpreter(root: str, name: str, size: int, used: float) -> Path:
    """Lay down what an interpreter is to the cache: a folder that says how large it is."""
    folder = Path(root, "interpreters", name)
    (folder / "bin").mkdir(parents=True)
    (folder / "size.json").write_text(str(size))
    os.utime(folder, (used, used))
    return folder


def test_interpreters_count_and_go_as_bundles_do(root: str) -> None:
    first = Store(root)
    bundles = [put(first, {f"source/m{n}.txt": "x" * 300_000}) for n in range(2)]
    first.close()
    for used, digest in ((1000, bundles[0]), (3000, bundles[1])):
        os.utime(first.bundle_path(digest), (used, used))
    old = put_interpreter(root, "old", 50 << 20, 2000)
    in_use = put_interpreter(root, "in use", 50 << 20, 500)
    lease = open_shared(str(in_use))

    Store(root, cap=200 << 20).close()
    assert old.exists()

    # Without both the oldest bundle and the interpreter that nobody uses, all find room.
    second = Store(root, cap=(50 << 20) + 400_000)
    assert not second.has(bundles[0])
    assert not old.exists()
    assert in_use.exists()
    assert second.has(bundles[1])
    second.close()
    assert lease is not None
    os.close(lease)


def test_an_interpreter_that_will_not_arrive_any_more_is_removed(root: str) -> None:
    arriving, failed = (put_interpreter(root, name, 0, 1000) for name in (".a.17", ".b.18"))
    (failed / "packed").write_bytes(b"x")
    (arriving / "packed").write_bytes(b"x")
    os.utime(arriving, (1000, 1000))
    for path in (failed / "packed", failed):
        os.utime(path, (1000, 1000))

    Store(root).close()

    assert arriving.exists()
    assert not failed.exists()


def test_an_interpreter_that_is_gone_is_not_held(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = os.path.join(root, "interpreters", "gone", "bin", "python3")
    monkeypatch.setattr(leases, "base_interpreter", lambda: program)
    with pytest.raises(StoreError, match="was removed while it was started"):
        leases.hold_interpreter(root)


def test_room_is_made_before_a_bundle_is_written(root: str) -> None:
    first = Store(root)
    old = put(first, {"source/old.txt": "x" * 300_000})
    first.close()
    second = Store(root, cap=2 << 20)

    new, data = bundle({"source/new.txt": "y" * 1_000_000})
    writer = second.begin(new, len(data))

    assert not second.has(old)
    writer.abort()
    second.close()
    assert os.listdir(Path(root, "store")) == []


def test_a_full_disk_is_told_before_anything_is_sent(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free", lambda path: 1 << 20)

    with pytest.raises(StoreError, match=r"1\.0 MiB free and a bundle needs .* scratch="):
        kept.begin("a" * 64, 5 << 20)


def test_a_disk_that_becomes_full_is_told_and_nothing_stays(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, data = bundle(PACKAGE)
    writer = kept.begin(digest, len(data))

    def full(handle: int, piece: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="no room in"):
        writer.write(data)
    monkeypatch.undo()
    assert os.listdir(Path(kept.root, "store")) == []


def test_a_disk_that_becomes_full_while_compiling_is_told(
    kept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_compile_all", lambda sources: errno.ENOSPC)

    with pytest.raises(StoreError, match="no room in"):
        put(kept, PACKAGE)
    assert os.listdir(Path(kept.root, "store")) == []


def test_a_folder_that_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a folder of this user"):
        Store(str(tmp_path / "file"))
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(StoreError, match="can be written by others"):
        Store(str(open_to_all))
    with pytest.raises(StoreError, match="cannot use"):
        Store(str(tmp_path / "file" / "below"))


def test_a_link_in_a_folder_that_all_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "target").mkdir()
    (shared / "cache").symlink_to(tmp_path / "target")

    with pytest.raises(StoreError, match="not a folder of this user"):
        Store(str(shared / "cache"))


def test_a_folder_mounted_noexec_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Status:
        f_flag = getattr(os, "ST_NOEXEC", 8)

    monkeypatch.setattr(os, "ST_NOEXEC", 8, raising=False)
    monkeypatch.setattr(os, "statvfs", lambda path: Status)
    with pytest.raises(StoreError, match="mounted noexec"):
        Store(root)


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no room"), (errno.EROFS, "cannot write into"), (errno.EIO, "cannot use")],
)
def test_errors_of_the_file_system_are_explained(tmp_path: Path, number: int, said: str) -> None:
    assert said in explain(OSError(number, "what"), str(tmp_path))


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "a" * 63])
def test_what_is_no_digest_is_refused(kept: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not the digest"):
        kept.has(name)


def test_the_stated_folder_comes_before_the_variable_and_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AFARM_CACHE", raising=False)
    assert default_root() == f"/var/tmp/afarm-{os.getuid()}"
    monkeypatch.setenv("AFARM_CACHE", "/some/cache")
    assert default_root() == "/some/cache"
    assert default_root("/stated") == "/stated"
