"""Which files of a bundle are Python's modules: these alone may come after imports have begun.

Everything else (shared libraries, data, metadata) comes before them: no import system stands
between such a file and who opens it, or asks whether it is there, in Python or in C.
"""

from __future__ import annotations


def is_module(name: str) -> bool:
    """Return whether a file is a module of Python, by its name in a bundle.

    An extension module without a tag is named like any shared library, and counts as one.
    """
    if name.startswith("prefix/"):
        return False
    if name.endswith((".py", ".pyc")):
        return True
    tag = name.rpartition("/")[2].split(".")[-2:-1]
    return name.endswith(".so") and tag != [] and tag[0].startswith(("abi3", "cpython-"))


def runs_at_start(name: str) -> bool:
    """Return whether every interpreter of an environment reads this file when it starts."""
    folder, _, file = name.rpartition("/")
    if folder != "site-packages":
        return False
    return file.endswith(".pth") or file in ("sitecustomize.py", "usercustomize.py")
