"""Installers that a host uses, on this machine: what they are told works, with wheels from here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.dependencies import bare_python
from benchmarks.installers import INSTALLERS, PIP, UV, command_to_install, served

INFO = "tiny-1.0.dist-info"
WHEEL = "Wheel-Version: 1.0\nGenerator: made up\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "print('imported')\n")
        wheel.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{INFO}/WHEEL", WHEEL)
        wheel.writestr(f"{INFO}/RECORD", f"tiny.py,,\n{INFO}/METADATA,,\n{INFO}/WHEEL,,\n")
    return folder


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_environment_is_installed_from_wheels_that_are_served(
    installer: str, wheels: Path, tmp_path: Path
) -> None:
    python = bare_python()
    has_pip = subprocess.run([python, "-I", "-m", "pip"], capture_output=True).returncode == 0
    if installer == PIP and not has_pip:
        pytest.skip("the interpreter outside of the virtual environment has no pip")
    if installer == UV:
        if importlib.util.find_spec("uv") is None:
            pytest.skip("uv is not installed here")
        from uv import find_uv_bin

        shutil.copy(find_uv_bin(), tmp_path / "uv")
    importing = "made/bin/python -c 'import tiny'"
    with served(wheels, "127.0.0.1") as url:
        command = command_to_install(installer, python, "made", ["tiny==1.0"], url)
        done = subprocess.run(
            ["env", "-i", f"HOME={tmp_path}", "sh", "-c", f"{command} && {importing}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n"
