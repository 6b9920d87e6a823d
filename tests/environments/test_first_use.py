"""The order in which an import reads files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from afarm.environments import Environment, analyze, first_use
from afarm.environments.first_use import first_use as find
from tests.environments.made_up import Install

pytestmark = pytest.mark.slow


def test_files_come_in_the_order_in_which_imports_reach_them(
    install: Install, tmp_path: Path
) -> None:
    site = install(
        "one",
        {
            "one/__init__.py": "from . import z\nimport two\nfrom . import a\n",
            "one/z.py": "print('to standard output')\nopen(__file__ + '.txt').read()\n",
            "one/z.py.txt": "",
            "one/a.py": "open('made.txt', 'w').close()\nraise SystemExit(1)\n",
            "one/unused.py": "",
        },
    )
    install("two", {"two.py": ""})

    for cache in ("with sources alone", "with bytecode"):
        order = find(["one", "not_there"], ["one 1.0"], tmp_path / cache)

        names = [os.path.relpath(path, site) for path in order]
        assert [name for name in names if not name.startswith("..")] == [
            "one/__init__.py", "one/z.py", "one/z.py.txt", "two.py", "one/a.py"
        ]  # fmt: skip


def test_libraries_come_before_the_module_that_loads_them(tmp_path: Path) -> None:
    order = find(["numpy"], [], tmp_path)

    extension = next(at for at, path in enumerate(order) if "_multiarray_umath" in path)
    libraries = [at for at, path in enumerate(order) if "numpy.libs" in path]
    assert libraries
    assert max(libraries) < extension
    assert Path(np.__file__).resolve() in map(Path, order[:extension])


def test_an_order_is_found_out_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", {"one.py": ""})
    order = find(["one"], ["one 1.0"], tmp_path / "cache")
    monkeypatch.setattr("subprocess.run", None)

    assert find(["one"], ["one 1.0"], tmp_path / "cache") == order
    assert find(["one"], ["one 2.0"], tmp_path / "cache", learn=False) == ()
    assert find([], [], tmp_path / "cache") == ()


def test_an_import_that_does_not_end_gives_no_order(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", {"one.py": "import signal\nsignal.pause()\n"})
    monkeypatch.setattr(first_use, "_LONGEST", 0.5)

    assert find(["one"], [], tmp_path / "cache") == ()


def test_bundles_and_their_files_come_in_the_order_of_use(install: Install, tmp_path: Path) -> None:
    install(
        "one",
        {"one/__init__.py": "from . import z, a\nimport two\n", "one/z.py": "", "one/a.py": ""},
    )
    install("zero", {"zero.py": "import one\n"}, requires=("one",))
    install("two", {"two.py": ""})
    install("never", {"never.py": ""})
    scope: dict[str, object] = {"__name__": "__main__"}
    exec("def f():\n  import zero\n  if zero: import never, two", scope)
    found = analyze(scope["f"])  # type: ignore[arg-type]

    environment = Environment.shipped(found, cache=tmp_path / "cache")

    assert [bundle.name for bundle in environment.bundles] == [
        "zero 1.0", "one 1.0", "two 1.0", "never 1.0"
    ]  # fmt: skip
    assert [bundle.head > 0 for bundle in environment.bundles] == [True, True, True, False]
    data = environment.bundles[1].path.read_bytes()
    names = [b"site-packages/one/%s.py\0" % name for name in (b"__init__", b"z", b"a")]
    places = [data.index(name) for name in names]
    assert places == sorted(places)
    assert data.index(b"METADATA\0") < environment.bundles[1].data <= places[0]
    assert places[-1] < environment.bundles[1].head
