"""Which nodes a command is about: from its arguments, else from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import afarm

VARIABLE = "AFARM_HOSTS"


def choose_nodes(stated: Sequence[str], environ: Mapping[str, str]) -> list[Any] | None:
    """Return the nodes that a command runs on.

    Args:
        stated: What the command line says: names, or files of them.
        environ: The environment: ``AFARM_HOSTS`` counts where nothing is stated.

    Returns:
        What `afarm.Farm` takes; ``None``, this machine, where nothing says otherwise.

    Raises:
        ValueError: If a file of nodes cannot be understood.
        OSError: If it cannot be read.
    """
    words = list(stated) or [environ.get(VARIABLE, "")]
    names = [name for word in words for name in _split(word)]
    nodes: list[Any] = []
    for name in names:
        nodes += afarm.load_nodes(name) if is_file(name) else [name]
    return nodes or None


def _split(word: str) -> list[str]:
    # A path may hold spaces and commas, a host's name never does.
    if os.path.exists(word):
        return [word]
    return [name for name in re.split(r"[,\s]+", word) if name]


def is_file(name: str) -> bool:
    """Return whether a word means a file of nodes: a host's name has no slash or ``.toml``."""
    return "/" in name or name.endswith(".toml") or os.path.isfile(name)
