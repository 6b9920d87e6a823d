"""What stays behind, and that nothing misses it."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import PurePosixPath

import pytest

from afarm.environments.bytecode import read_code
from afarm.environments.installed import Installed
from afarm.environments.left_out import RULES, rule_for, stays
from afarm.environments.scan import absolute
from tests.environments.made_up import Install

# Scripts that made the tables which scipy comes with.
_SCRIPTS = "scipy/special/_precompute/"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RULES))
def test_no_module_imports_what_stays_behind(name: str) -> None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    folder = RULES[name].folder
    modules, behind = 0, 0
    for file in map(str, found.files or ()):
        if not file.endswith(".py"):
            continue
        if stays(RULES[name], f"site-packages/{file}"):
            behind += 1
            continue
        modules += 1
        path = os.path.join(found.locate_file(""), file)
        with open(path, "rb") as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source.read(), path, "exec", dont_inherit=True)
        package = ".".join(PurePosixPath(file).parent.parts)
        for site in read_code(code).imports:
            needed = absolute(site, package, "")
            assert needed is not None
            names = [needed.module, *(f"{needed.module}.{member}" for member in needed.members)]
            own = [each for each in names if each.split(".")[0] == file.split("/")[0]]
            inside = any(folder in each.split(".")[1:] for each in own)
            assert not inside or file.startswith(_SCRIPTS), f"{file} imports {needed}"
            assert "_precompute" not in needed.module or file.startswith(_SCRIPTS)
    assert modules > 30
    assert behind > 20


def test_whoever_imports_from_such_a_folder_gets_everything(install: Install) -> None:
    site = install(
        "numpy", {"numpy/__init__.py": "", "numpy/tests/data.txt": "1", "numpy/tests.py": ""}
    )
    known = Installed([str(site)])

    part = known.describe("numpy", {"numpy", "tests"})
    whole = known.describe("numpy", {"numpy.core.tests.inner"})

    data = "site-packages/numpy/tests/data.txt"
    assert data not in {file.name for file in part.files}
    assert "site-packages/numpy/tests.py" in {file.name for file in part.files}
    assert part.left_out == (
        "1 files in folders tests/: no module outside of its tests imports them"
    )
    assert data in {file.name for file in whole.files}
    assert (whole.left_out, part.changed) == ("", ())


def test_of_what_is_not_listed_nothing_stays() -> None:
    assert rule_for("made-up", ()) is None
    assert not stays(None, "site-packages/made_up/tests/test_it.py")
    assert not stays(RULES["numpy"], "site-packages/tests/__init__.py")
