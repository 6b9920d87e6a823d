"""What an agent says of its node besides its capacity, in `Hello`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence

from .cache import why_not_to_ship

# What every call is measured and bounded by.
_TIERS = ("process", "tree")


def introduction(
    cache: str, controllers: Sequence[str], sources: Mapping[str, str]
) -> dict[str, object]:  # fmt: skip
    """Return what is told, by name; for JSON.

    Args:
        cache: The folder of caches.
        controllers: Of the kernel, those that bound calls as well: see `grouping`.
        sources: What sets the capacity.
    """
    libc, libc_version = platform.libc_ver()
    return {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "abi": sys.implementation.cache_tag + getattr(sys, "abiflags", ""),
        "platform": f"{sys.platform}-{platform.machine()}",
        "libc": f"{libc} {libc_version}".strip(),
        "executable": sys.executable,
        "host": platform.node(),
        "pid": os.getpid(),
        "cache": cache,
        "not_to_ship": why_not_to_ship(cache),
        "tiers": [*_TIERS, *(f"group ({name})" for name in controllers)],
        "sources": dict(sources),
    }
