"""What the tests analyse: a project of the user's own, and installed distributions."""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

Install = Callable[..., Path]


def hashed(text: str) -> str:
    """Return the hash of a file as installers note it in RECORD."""
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Project:
    """A folder on ``sys.path`` with modules of the user's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: Mapping[str, str]) -> None:
        """Write files, by their paths in the folder."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    def load(self, name: str) -> ModuleType:
        """Import a module of the project."""
        return importlib.import_module(name)
