"""A project of the user's own and a folder of installed distributions, both made up."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.environments.made_up import Install, Project, hashed


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Project(folder)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a made-up distribution into a folder on the path."""
    folder = tmp_path / "lib" / "python3" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))

    def install(
        name: str,
        files: Mapping[str, str] | None = None,
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        extras: tuple[str, ...] = (),
        editable: Path | None = None,
        record: bool = True,
    ) -> Path:
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {line}" for line in requires]
        metadata += [f"Provides-Extra: {extra}" for extra in extras]
        written = {**(files or {}), f"{info}/METADATA": "\n".join(metadata) + "\n"}
        written[f"{info}/INSTALLER"] = "pip\n"
        if editable is not None:
            origin = {"url": editable.as_uri(), "dir_info": {"editable": True}}
            written[f"{info}/direct_url.json"] = json.dumps(origin)
            written[f"__editable__.{name}.pth"] = f"{editable}\n"
        for path, text in written.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        if record:
            lines = [f"{path},sha256={hashed(text)},{len(text)}" for path, text in written.items()]
            lines.append(f"{info}/RECORD,,")
            (folder / info / "RECORD").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()
        return folder

    return install
