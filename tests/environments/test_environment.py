"""An environment as one value, and its description for nodes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from afarm.environments import Environment, analyze
from afarm.errors import DependencyError
from tests.environments.made_up import Install, Project


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


def test_in_place_is_this_interpreter_with_its_path() -> None:
    environment = Environment.in_place(("numpy",))

    description = json.loads(environment.describe({}))
    assert description["in_place"] is True
    assert description["executable"] == sys.executable
    assert description["preload"] == ["numpy"]
    assert all(os.path.isabs(entry) for entry in description["path"])
    assert set(description["path"]) == {os.path.abspath(entry) for entry in sys.path}
    assert environment == Environment.in_place(("numpy",))
    assert environment != Environment.in_place(())


def test_a_shipped_environment_lists_its_bundles(project: Project, tmp_path: Path) -> None:
    project.write({"own_one.py": "import mdurl\n"})
    dependencies = analyze(by_value("def f(): import own_one"))

    environment = Environment.shipped(dependencies, cache=tmp_path)

    distribution, source = environment.bundles
    numbers = {distribution.digest: 5, source.digest: 9}
    description = json.loads(environment.describe(numbers))
    assert description == {
        "in_place": False,
        "bundles": [
            {
                "blob": 5,
                "digest": distribution.digest,
                "head": distribution.head,
                "kind": "distribution",
                "name": f"mdurl {dependencies.distributions[0].version}",
                "native": False,
                "size": distribution.size,
            },
            {
                "blob": 9,
                "digest": source.digest,
                "head": 0,
                "kind": "source",
                "name": "own_one.py",
                "native": False,
                "size": source.size,
            },
        ],
        "digest": environment.digest,
        "preload": ["mdurl"],
    }


def test_equal_dependencies_give_the_same_environment(project: Project, tmp_path: Path) -> None:
    project.write({"own_one.py": "", "own_two.py": ""})
    one = Environment.shipped(analyze(by_value("def f(): import own_one")), cache=tmp_path)
    same = Environment.shipped(analyze(by_value("def f():\n import own_one")), cache=tmp_path)
    other = Environment.shipped(analyze(by_value("def f(): import own_two")), cache=tmp_path)

    assert one == same
    assert hash(one) == hash(same)
    assert one.digest != other.digest


def test_the_same_dependencies_are_looked_at_once_while_their_bundles_are_there(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = install("edited", {"edited.py": "x = 1\n"})
    (site / "edited.py").write_text("x = 1 + 1\n")
    made = [by_value("def f(): import edited") for _ in range(2)]

    first, second = (Environment.shipped(analyze(fn), cache=tmp_path / "cache") for fn in made)
    assert second is first
    told = [record for record in caplog.records if "not as it was installed" in record.message]
    assert len(told) == 1

    first.bundles[0].path.unlink()
    assert Environment.shipped(analyze(made[0]), cache=tmp_path / "cache") == first
    assert first.bundles[0].path.exists()


def test_machine_code_names_the_platform_it_is_for(tmp_path: Path) -> None:
    environment = Environment.shipped(analyze(by_value("def f(): import psutil")), cache=tmp_path)

    (bundle,) = environment.bundles
    assert bundle.native
    platform = json.loads(environment.describe({bundle.digest: 1}))["platform"]
    assert platform["machine"] == os.uname().machine


def test_nothing_is_shipped_of_a_function_that_misses_something(tmp_path: Path) -> None:
    dependencies = analyze(by_value("def f(): import not_there"))

    with pytest.raises(DependencyError, match="not_there"):
        Environment.shipped(dependencies, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
