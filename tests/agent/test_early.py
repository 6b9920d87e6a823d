"""Environments in which importing begins before all is there, as the storekeeper makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from afarm._agent.arrival import COMING, COMPLETE
from afarm._agent.build import remove_tree
from afarm._agent.internal import Arriving
from afarm._agent.store import environment_path
from afarm._wire import messages as wire
from tests.agent.made_up_bundles import bundle, run
from tests.agent.test_storekeeper import Keeper, description

FILES = {
    "site-packages/pack/data.txt": "data",
    "prefix/bin/tool": "#!python\nimport pack, sys\nprint(pack.value, sys.prefix)\n",
    "site-packages/pack/__init__.py": "value = 7\n",
    "site-packages/pack/below/late.py": "late = 8\n" + "#" * 9000 + "\n",
}

IMPORT = "import pack.below.late as late; print(late.late, late.__file__)"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cache"
    remove_tree(str(tmp_path))
    tmp_path.mkdir()


@pytest.fixture
def keeper(root: Path) -> Iterator[Keeper]:
    keeper = Keeper(str(root), "", str(root / "early"))
    yield keeper
    keeper.close()


def wait_early(keeper: Keeper) -> Path:
    early = keeper.wait_answer(lambda answer: isinstance(answer, Arriving))
    return Path(early.folder)


def in_steps(keeper: Keeper, blob: int, digest: str, data: bytes) -> None:
    """Send a bundle so that no two of its files come at once."""
    keeper.send(wire.Blob(blob, len(data), digest, "bundle", ""))
    for at in range(0, len(data), 500):
        keeper.bulk(blob, data[at : at + 500])


def packages(folder: Path) -> Path:
    [found] = folder.glob("lib/python*/site-packages")
    return found


def coming(folder: Path) -> list[str]:
    return [os.path.basename(path) for path in json.loads((folder / COMING).read_text())]


def test_it_is_announced_when_all_but_modules_is_there_and_filled_as_they_come(
    root: Path, keeper: Keeper
) -> None:
    digest, data = bundle(FILES, executable="prefix/bin/tool")
    keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    first = data.index(b"site-packages/pack/__init__.py\0")
    keeper.bulk(1, data[:first])

    folder = wait_early(keeper)

    assert sorted(coming(folder)) == ["__init__.py", "late.py"]
    assert (packages(folder) / "pack" / "data.txt").read_text() == "data"
    assert (packages(folder) / "pack" / "below").is_dir()
    assert not (packages(folder) / "pack" / "__init__.py").exists()
    assert os.listdir(root / "environments") == []

    keeper.bulk(1, data[first:])
    assert keeper.wait_state(1).problem == ""

    assert (folder / COMPLETE).exists()
    assert run(folder / "bin" / "python", IMPORT) == (f"8 {packages(folder)}/pack/below/late.py")
    tool = folder / "bin" / "tool"
    assert tool.read_text().splitlines()[0] == f"#!{folder}/bin/python"
    assert keeper.end() == (0, "")
    # What was compiled here is there, too, and others get an environment of their own.
    assert list((packages(folder) / "pack" / "below" / "__pycache__").iterdir())
    name = json.loads(description(digest))["digest"]
    assert "8" in run(f"{environment_path(str(root), name)}/bin/python", IMPORT)


def test_a_file_is_visible_only_when_it_is_verified(keeper: Keeper) -> None:
    digest, data = bundle(FILES)
    keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    at = data.index(b"late = 8") + 1000
    keeper.bulk(1, data[:at])
    folder = wait_early(keeper)

    # Its beginning is there; where, is known to nobody.
    late = packages(folder) / "pack" / "below" / "late.py"
    assert not late.exists()
    keeper.bulk(1, data[at:].replace(b"###", b"# #"))

    assert "did not arrive as it was sent" in keeper.wait_state(1).problem
    assert not late.exists()
    assert not (folder / COMPLETE).exists()


def test_it_is_made_anew_when_a_refused_bundle_is_sent_again(keeper: Keeper) -> None:
    digest, data = bundle(FILES)
    keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
    in_steps(keeper, 1, digest, data.replace(b"late = 8", b"late = 9"))
    assert keeper.wait_state(1).problem
    first = wait_early(keeper)
    keeper.answers.clear()

    keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
    in_steps(keeper, 1, digest, data)

    assert keeper.wait_state(1).problem == ""
    assert wait_early(keeper) != first
    assert run(wait_early(keeper) / "bin" / "python", IMPORT).startswith("8 ")


def test_what_is_there_already_is_part_of_it(root: Path, keeper: Keeper) -> None:
    old, old_data = bundle({"source/own.py": "from pack import value\n"})
    new, new_data = bundle(FILES)
    keeper.send(wire.Environment(1, description(old)))
    keeper.bundle(1, old, old_data)
    assert keeper.wait_state(1).problem == ""

    keeper.send(wire.Environment(2, description(old, new, preload=["pack"])))
    keeper.send(wire.Blob(2, len(new_data), new, "bundle", ""))
    keeper.bulk(2, new_data[: new_data.index(b"site-packages/pack/__init__.py\0")])
    folder = wait_early(keeper)
    keeper.bulk(2, new_data[new_data.index(b"site-packages/pack/__init__.py\0") :])

    assert keeper.wait_state(2).problem == ""
    assert run(folder / "bin" / "python", "import own; print(own.value)") == "7"


def test_it_is_whole_where_another_farm_was_faster_with_a_bundle(
    root: Path, keeper: Keeper
) -> None:
    one, one_data = bundle(FILES)
    two, two_data = bundle({"source/own.py": "own = 1\n"})
    keeper.send(wire.Environment(1, description(one, two, preload=["pack"])))
    keeper.send(wire.Blob(1, len(one_data), one, "bundle", ""))
    keeper.send(wire.Blob(2, len(two_data), two, "bundle", ""))
    keeper.bulk(1, one_data[: one_data.index(b"late = 8")])
    keeper.bulk(2, two_data[:2000])
    folder = wait_early(keeper)
    other = Keeper(str(root))
    other.bundle(1, one, one_data)
    other.wait_answer(lambda answer: answer == wire.Stored(1))
    assert other.end() == (0, "")
    other.close()

    keeper.bulk(2, two_data[2000:])

    assert keeper.wait_state(1).problem == ""
    assert run(folder / "bin" / "python", IMPORT).startswith("8 ")


@pytest.mark.parametrize(
    ("files", "preload"),
    [
        ([FILES], []),
        ([{**FILES, "site-packages/pack.pth": "import pack\n"}], ["pack"]),
        ([FILES, {"site-packages/pack/__init__.py": "value = 9\n"}], ["pack"]),
    ],
    ids=["nothing to import", "code at the start of an interpreter", "one name twice"],
)
def test_what_cannot_be_right_before_all_is_there_waits_for_it(
    keeper: Keeper, files: list[dict[str, str]], preload: list[str]
) -> None:
    bundles = [bundle(each) for each in files]
    keeper.send(
        wire.Environment(1, description(*(digest for digest, _ in bundles), preload=preload))
    )
    for number, (digest, data) in enumerate(bundles, 1):
        in_steps(keeper, number, digest, data)

    assert keeper.wait_state(1).problem == ""
    assert not [answer for answer in keeper.answers if isinstance(answer, Arriving)]


def test_what_comes_at_once_is_made_at_once_for_all_sessions(root: Path, keeper: Keeper) -> None:
    digest, data = bundle(FILES)
    keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
    keeper.bundle(1, digest, data)

    assert keeper.wait_state(1).problem == ""
    assert not [answer for answer in keeper.answers if isinstance(answer, Arriving)]
    assert len(os.listdir(root / "environments")) == 1


def test_where_there_are_no_links_it_is_made_when_all_is_there(root: Path) -> None:
    digest, data = bundle(FILES)
    # Another file system: links do not lead there.
    elsewhere = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/run")
    folder = elsewhere / f"afarm-test-{os.getpid()}"
    if os.stat(elsewhere).st_dev == os.stat(root.parent).st_dev:
        pytest.skip("there is one file system here")
    keeper = Keeper(str(root), "", str(folder))
    try:
        keeper.send(wire.Environment(1, description(digest, preload=["pack"])))
        in_steps(keeper, 1, digest, data)

        assert keeper.wait_state(1).problem == ""
        assert not [answer for answer in keeper.answers if isinstance(answer, Arriving)]
        assert len(os.listdir(root / "environments")) == 1
    finally:
        keeper.close()
        remove_tree(str(folder))
