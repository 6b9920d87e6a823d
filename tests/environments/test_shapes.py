"""Every shape in which a function can depend on something: found, and run where nothing is."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import afarm
from afarm.environments import analyze
from afarm.payload.arguments import dump_arguments
from tests.environments.made_up import Project
from tests.environments.shapes import PROJECT, SHAPES, Shape


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"))
    project.write(PROJECT)
    sys.path.insert(0, str(project.folder))
    yield project
    sys.path.remove(str(project.folder))
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def load(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, tuple[Any, ...]]:
    """Run a program as a script; return its function and the arguments."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(shape.source, "/home/user/shape.py", "exec"), vars(main))
    return main.f, getattr(main, "arguments", ())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_it_is_found_with_its_place(
    shape: Shape, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, arguments = load(shape, monkeypatch)

    found = analyze(function, carried=dump_arguments(arguments, {}).needs)

    assert [distribution.name for distribution in found.distributions] == [*shape.distributions]
    seen = {(needed.module, needed.where) for needed in found.modules}
    assert set(shape.needs) <= seen
    assert all(needed.where for needed in found.modules)
    found.check()


@pytest.mark.integration
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_it_runs_where_nothing_is(
    shape: Shape, project: Project, bare: afarm.Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, arguments = load(shape, monkeypatch)

    assert bare.submit(function, *arguments).result(60) == shape.expected


def test_own_modules_travel_as_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = next(shape for shape in SHAPES if shape.name == "namespace package")
    function, _ = load(shape, monkeypatch)

    (tree,) = analyze(function).local

    assert tree.root == str(Path(project.folder, "own_space"))


def lazily() -> tuple[float, tuple[int, int], str]:
    """Use what scipy and scikit-learn import when it is asked for, and data beside the code."""
    import scipy
    from sklearn import datasets, set_config

    set_config(array_api_dispatch=False)
    table = datasets.load_iris()
    return round(float(scipy.special.erf(1.0)), 6), table.data.shape, scipy.fft.fft.__name__


@pytest.mark.slow
@pytest.mark.integration
def test_packages_import_their_parts_lazily_there(bare: afarm.Executor) -> None:
    found = analyze(lazily)
    names = [distribution.name for distribution in found.distributions]
    assert {"numpy", "scikit-learn", "scipy", "joblib", "threadpoolctl"} <= set(names)

    assert bare.submit(lazily).result(120) == (0.842701, (150, 4), "fft")
