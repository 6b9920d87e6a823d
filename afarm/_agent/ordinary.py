"""What makes one of our processes look to the user's code like any program's."""

from __future__ import annotations

import io
import os
import sys
import types


def become_ordinary() -> None:
    """Give the user's code standard streams and a ``__main__`` with nothing of ours in them."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, _text(descriptor))
        setattr(sys, f"__{name}__", getattr(sys, name))
    # What functions see as `__main__` has nothing of ours in it.
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv[:] = [""]


def _text(descriptor: int) -> io.TextIOWrapper:
    """Return a text stream that passes on each line, and never fails for its encoding."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
