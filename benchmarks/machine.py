"""On what the figures were measured: they say which way wins here, not what you will see."""

from __future__ import annotations

import os
import platform
from importlib import metadata

PACKAGES = (
    "afarm",
    "asyncssh",
    "cloudpickle",
    "dask",
    "distributed",
    "execnet",
    "loky",
    "numpy",
    "parsl",
    "pebble",
    "ray",
    "uvloop",
)


def describe_machine() -> dict[str, object]:
    """Return what matters of the machine: processor, cores, memory, kernel, load."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except FileNotFoundError:  # macOS
        names = []
    return names[0] if names else platform.processor()


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of every system compared that is installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
