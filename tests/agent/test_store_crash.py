"""A store whose process is killed, at any of its steps: nothing half-written is ever used."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afarm._agent.build import remove_tree
from afarm._agent.store import Store
from tests.agent.made_up_bundles import PACKAGE, bundle, put, run

pytestmark = [pytest.mark.slow, pytest.mark.integration]

ENVIRONMENT = "e" * 64

# What changes a file system; each is a step at which the process may end.
STEPS = (
    "open",
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.utime",
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "cache"
    yield str(folder)
    remove_tree(str(folder))


def die_at(step: int, root: str) -> bool:
    """Store a bundle and build its environment in a process that kills itself at a step.

    Returns:
        Whether it did; else it had come to its end before.
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            left = step

            def count(event: str, arguments: object) -> None:
                nonlocal left
                if event in STEPS:
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            store = Store(root)
            store.environment(ENVIRONMENT, [put(store, PACKAGE)])
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert ended in (0, signal.SIGKILL)
    return ended != 0


def test_whatever_it_leaves_is_whole_or_not_used(root: str) -> None:
    digest, _ = bundle(PACKAGE)
    expected: list[str] = []
    step = seen = whole = 0
    while die_at(step := step + 1, root):
        store = Store(root)
        if store.has(digest):
            whole += 1
        else:
            seen += 1
            assert put(store, PACKAGE) == digest
        made = os.path.exists(store.environment_path(ENVIRONMENT))
        path, _ = store.environment(ENVIRONMENT, [digest])
        names = sorted(str(file.relative_to(path)) for file in Path(path).rglob("*"))
        if made or step == 1:
            assert run(Path(path, "bin/python"), "import pack; print(pack.value)") == "7"
        assert names == (expected := expected or names)
        hidden = [name for part in Path(root).iterdir() for name in os.listdir(part)]
        assert not [name for name in hidden if name.startswith(".")]
        store.close()
        remove_tree(root)
    assert seen > 20
    assert whole > 5
