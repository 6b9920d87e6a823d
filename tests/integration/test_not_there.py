"""What a node lacks is named, with what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import afarm
from tests.environments.made_up import Project

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Project(tmp_path)


def test_a_missing_module_is_told_before_anything_is_sent(bare: afarm.Executor) -> None:
    def needs() -> None:
        import not_there_at_all  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(
        afarm.DependencyError, match=r"'not_there_at_all', seen in .*test_not_there\.py:\d+\)"
    ) as caught:
        bare.submit(needs).result(60)
    assert caught.value.names == ("not_there_at_all",)


def test_a_class_that_its_module_lacks_there_is_named(
    bare: afarm.Executor, project: Project
) -> None:
    project.write({"own_late_class.py": ""})
    module: Any = project.load("own_late_class")
    exec("class Late: pass", vars(module))

    with pytest.raises(afarm.SerializationError, match=r"'Late'.*define it there"):
        bare.submit(str, module.Late()).result(60)


def test_a_module_that_unpickling_imports_and_nobody_has_is_named(
    bare: afarm.Executor, project: Project
) -> None:
    project.write(
        {
            "own_hiding.py": (
                "def rebuild(a, b): return __import__(a + b)\n"
                "class Hiding:\n  def __reduce__(self): return rebuild, ('nowhere', '_there')\n"
            ),
        }
    )
    argument = project.load("own_hiding").Hiding()

    with pytest.raises(
        afarm.DependencyError, match="asked this side for 'nowhere_there': nothing here provides it"
    ) as caught:
        bare.submit(int, argument).result(60)
    assert caught.value.names == ("nowhere_there",)


def test_an_import_of_something_that_is_nowhere_fails_as_itself(bare: afarm.Executor) -> None:
    def call(name: str) -> None:
        __import__(name)

    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all") as caught:
        bare.submit(call, "nowhere_at_all").result(60)
    assert "asked this side for 'nowhere_at_all'" in "".join(caught.value.__notes__)
    assert "nowhere_at_all" not in sys.modules
