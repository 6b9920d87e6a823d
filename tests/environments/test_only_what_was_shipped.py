"""On a node with packages of its own, calls and what they start see what was shipped instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

import afarm
from afarm._agent.build import base_interpreter

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OWN = "raise RuntimeError('this is the node\\'s own')\n"
PROGRAM = '#!/bin/sh\necho "this is the node\'s own"\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[afarm.Executor]:
    """A node whose user has packages and programs wherever Python and the shell look for them."""
    home = tmp_path_factory.mktemp("home")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user_site = f"lib/{python}/site-packages"
    for place in (home / "modules", home / "base" / user_site, home / ".local" / user_site):
        for package in ("numpy", "mdurl", "pygments"):
            (place / package).mkdir(parents=True)
            (place / package / "__init__.py").write_text(OWN)
        (place / "sitecustomize.py").write_text(OWN)
        (place / "usercustomize.py").write_text(OWN)
    (home / "bin").mkdir()
    for name in ("pygmentize", "python", "python3"):
        (home / "bin" / name).write_text(PROGRAM)
        (home / "bin" / name).chmod(0o755)
    variables = {
        "HOME": home,
        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": home / "modules",
        "PYTHONUSERBASE": home / "base",
    }
    there = afarm.CommandNode(
        ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())],
        python=base_interpreter(),
        scratch=str(tmp_path_factory.mktemp("scratch")),
        cores=2,
    )
    with afarm.Executor([there], progress=False) as executor:
        yield executor


def in_this_process() -> list[str]:
    import numpy as np

    return [np.__file__]


def by_this_interpreter() -> list[str]:
    import subprocess

    import numpy as np

    program = "import numpy; print(numpy.__file__)"
    return [np.__file__, subprocess.check_output([sys.executable, "-c", program], text=True)]


def by_an_interpreter_on_the_path() -> list[str]:
    import subprocess

    import numpy as np

    program = "import numpy; print(numpy.__file__)"
    said = [
        subprocess.check_output([python, "-c", program], text=True)
        for python in ("python", "python3", f"python3.{sys.version_info.minor}")
    ]
    return [np.__file__, *said]


def with_a_clean_environment() -> list[str]:
    import subprocess

    import numpy as np

    program = "import numpy; print(numpy.__file__)"
    argv = [sys.executable, "-c", program]
    return [np.__file__, subprocess.check_output(argv, env={}, text=True)]


def as_a_module() -> list[str]:
    import subprocess

    import pygments

    argv = [sys.executable, "-m", "pygments", "-V"]
    said = subprocess.check_output(argv, text=True)
    assert said.startswith(f"Pygments version {pygments.__version__}")
    return [pygments.__file__]


def as_a_program() -> list[str]:
    import shutil
    import subprocess

    import pygments

    said = subprocess.check_output(["pygmentize", "-V"], text=True)
    assert said.startswith(f"Pygments version {pygments.__version__}"), said
    return [pygments.__file__, str(shutil.which("pygmentize"))]


def place_of_numpy(_: object) -> str:
    import numpy as np

    return np.__file__


def in_processes_forked() -> list[str]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(place_of_numpy, range(2))


def in_processes_spawned() -> list[str]:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(place_of_numpy, range(2))


def in_processes_of_a_server() -> list[str]:
    import multiprocessing

    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        return pool.map(place_of_numpy, range(2))


def in_processes_of_an_executor() -> list[str]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(place_of_numpy, range(2)))


def in_processes_of_loky() -> list[str]:
    import joblib

    parallel = joblib.Parallel(n_jobs=2)
    return list(parallel(joblib.delayed(place_of_numpy)(n) for n in range(2)))


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
@pytest.mark.parametrize(
    "call",
    [
        in_this_process,
        by_this_interpreter,
        by_an_interpreter_on_the_path,
        with_a_clean_environment,
        as_a_module,
        as_a_program,
        in_processes_forked,
        in_processes_spawned,
        in_processes_of_a_server,
        in_processes_of_an_executor,
        in_processes_of_loky,
    ],
    ids=lambda call: call.__name__,
)
def test_a_call_sees_what_was_shipped(
    node: afarm.Executor, call: Callable[[], list[str]], isolation: str
) -> None:
    places = node.options(isolation=isolation).submit(call).result(60)

    for place in places:
        assert f"{os.sep}environments{os.sep}" in place or f"{os.sep}early{os.sep}" in place, places


def test_what_was_not_shipped_is_nowhere(node: afarm.Executor) -> None:
    def call(name: str) -> str:
        import subprocess

        argv = [sys.executable, "-c", f"import {name}"]
        return subprocess.run(argv, capture_output=True, text=True).stderr

    assert "No module named 'pygments'" in node.submit(call, "pygments").result(60)
