"""Installed in every way there is, found, and run where nothing is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import afarm
from tests.environments.made_up import Install, Project

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFARM_CACHE", str(tmp_path / "cache"))


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


def test_several_distributions_of_one_namespace(bare: afarm.Executor, install: Install) -> None:
    install("space-one", {"spaced/one.py": "value = 1\n"})
    install("space-two", {"spaced/two/__init__.py": "value = 2\n"})
    fn = by_value(
        "def f():\n  import spaced.one\n  from spaced import two\n"
        "  return spaced.one.value + two.value"
    )

    assert bare.submit(fn).result(60) == 3


def test_a_distribution_without_a_record_with_data_and_its_version(
    bare: afarm.Executor, install: Install
) -> None:
    install(
        "plain",
        {
            "plain/__init__.py": "from importlib.metadata import version\n"
            "from importlib.resources import files\n"
            "value = version('plain'), files(__name__).joinpath('table.txt').read_text()\n",
            "plain/table.txt": "1 2",
        },
        record=False,
    )

    fn = by_value("def f():\n  import plain\n  return plain.value")
    assert bare.submit(fn).result(60) == ("1.0", "1 2")


def test_an_editable_install_by_a_path_file(
    bare: afarm.Executor, install: Install, project: Project
) -> None:
    project.write(
        {
            "own_live/__init__.py": "from . import part\n",
            "own_live/part.py": "from importlib.metadata import version\nimport needed_here\n"
            "class Thing:\n  v = version('own-live'), needed_here.value\n",
        }
    )
    install("needed-here", {"needed_here.py": "value = 3\n"})
    install("own-live", requires=("needed-here",), editable=project.folder)
    thing = project.load("own_live").part.Thing()

    fn = by_value(
        "def f(thing):\n  import own_live\n  return thing, isinstance(thing, own_live.part.Thing)"
    )
    found, same = bare.submit(fn, thing).result(60)

    assert same
    assert type(found) is type(thing)
    assert by_value("def f(x): return x.v")(found) == ("1.0", 3)


def test_plug_ins_announced_by_entry_points(
    bare: afarm.Executor, install: Install, project: Project
) -> None:
    install(
        "hosts",
        {
            "hosts.py": "from importlib.metadata import entry_points\ndef run():\n"
            "  return sorted(each.load()() for each in entry_points(group='hosts.plugs'))\n"
        },
    )
    points = "[hosts.plugs]\nx = {}:run\n"
    install(
        "plug-one",
        {
            "plug_one.py": "def run(): return 'one'\n",
            "plug_one-1.0.dist-info/entry_points.txt": points.format("plug_one"),
        },
    )
    project.write({"own_plug_in.py": "def run(): return 'own'\n"})
    install(
        "own-plug-in",
        {"own_plug_in-1.0.dist-info/entry_points.txt": points.format("own_plug_in")},
        editable=project.folder,
    )

    fn = by_value("def f():\n  import hosts\n  return hosts.run()")

    assert bare.submit(fn).result(60) == ["one", "own"]


def test_nothing_of_the_machine_is_seen_there(
    bare: afarm.Executor, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("only-here", {"only_here.py": ""})
    monkeypatch.setenv("PYTHONPATH", str(site))
    fn = by_value("def f():\n  import sys\n  return [*sys.path, *sys.modules]")

    seen = bare.submit(fn).result(60)

    assert not [each for each in seen if each.startswith((str(site), sys.prefix + "/"))]
    assert "only_here" not in seen
