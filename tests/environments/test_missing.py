"""What a node asks for at run time."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from afarm.environments import analyze, find_missing, remember
from afarm.environments.missing import remembered
from tests.environments.made_up import Install, Project


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFARM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(name: str, known: frozenset[str] = frozenset()) -> list[str]:
    return [bundle.name for bundle in find_missing(name, known)]


def test_a_module_comes_with_all_that_its_distribution_requires(
    install: Install, cache: Path
) -> None:
    install("plug", {"plug_in/__init__.py": "", "plug_in/deep.py": ""}, requires=("base",))
    install("base", {"base.py": ""})

    assert names("plug_in.deep") == ["base 1.0", "plug 1.0"]


def test_what_the_environment_has_does_not_come_again(install: Install, cache: Path) -> None:
    install("plug", {"plug.py": ""}, requires=("base",))
    install("base", {"base.py": ""})
    (base,) = find_missing("base", ())

    assert names("plug", frozenset([base.digest])) == ["plug 1.0"]
    assert names("base", frozenset([base.digest])) == []


def test_a_module_of_ones_own_comes_with_what_its_modules_import(
    project: Project, cache: Path
) -> None:
    project.write({"own_late/__init__.py": "import own_more, mdurl\n", "own_more.py": ""})

    assert [name.split()[0] for name in names("own_late")] == ["mdurl", "own_late", "own_more.py"]


@pytest.mark.parametrize("name", ["not_there", "json.nothing", "own_half.not_there", "base.gone"])
def test_what_nothing_here_provides_is_not_to_be_had(
    project: Project, install: Install, cache: Path, name: str
) -> None:
    project.write({"own_half/__init__.py": ""})
    install("base", {"base.py": ""})

    assert names(name) == []


def test_what_was_asked_for_belongs_to_the_function_from_then_on(
    install: Install, cache: Path
) -> None:
    install("late", {"late.py": ""})
    install("later", {"later.py": ""})
    fn = by_value("def f(name): __import__(name)")
    assert analyze(fn).distributions == ()

    remember(fn, "late")
    remember(functools.partial(fn, 3), "later")

    found = analyze(fn)
    assert [distribution.name for distribution in found.distributions] == ["late", "later"]
    assert found.modules[0].where == "an earlier call, at run time"
    assert found.preload == ()
    again = by_value(
        "\n\ndef f(name): __import__(name)"
    )  # in the next program, a few lines further
    assert remembered(again) == ("late", "later")
    assert remembered(by_value("def f(name): return __import__(name)")) == ()


def test_what_cannot_be_remembered_is_let_go(cache: Path) -> None:
    fn = by_value("def f(): pass")
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file in the place of the folder")

    remember(fn, "late")
    remember(print, "late")

    assert remembered(fn) == remembered(print) == ()
