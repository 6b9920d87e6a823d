"""Where things are kept on the farm's side."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the folder of all that is kept between programs: ``$AFARM_CACHE`` or ``~/.cache``."""
    stated = os.environ.get("AFARM_CACHE")
    if stated:
        return Path(stated)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "afarm"


def cache_folder() -> Path:
    """Return the folder of packed bundles on this side."""
    return cache_root() / "bundles"
