"""Which files may come after imports have begun, and which an interpreter reads at its start."""

from __future__ import annotations

import pytest

from afarm._agent.parts import is_module, runs_at_start


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("site-packages/pack/__init__.py", True),
        ("site-packages/pack/__pycache__/x.cpython-311.pyc", True),
        ("site-packages/pack/_core.cpython-311-x86_64-linux-gnu.so", True),
        ("site-packages/pack/_core.abi3.so", True),
        ("source/own.py", True),
        ("site-packages/pack/_core.so", False),
        ("site-packages/pack.libs/libgfortran-040039e1-0352e75f.so.5.0.0", False),
        ("site-packages/pack.libs/libopenblas64_p-r0-0cf96a72.3.23.dev.so", False),
        ("site-packages/pack/so", False),
        ("site-packages/pack-1.0.dist-info/METADATA", False),
        ("prefix/bin/tool.py", False),
    ],
)
def test_modules_are_told_by_their_names(name: str, module: bool) -> None:
    assert is_module(name) == module


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("site-packages/distutils-precedence.pth", True),
        ("site-packages/sitecustomize.py", True),
        ("site-packages/pack/data.pth", False),
        ("source/sitecustomize.py", False),
    ],
)
def test_what_runs_at_the_start_of_an_interpreter_is_known(name: str, runs: bool) -> None:
    assert runs_at_start(name) == runs
