"""Interpreters that believe to be on another platform."""

from __future__ import annotations

import sys
from pathlib import Path

# What Python does not have elsewhere.
LINUX_ALONE = (
    ("fcntl", "F_SETPIPE_SZ"),
    ("os", "memfd_create MFD_CLOEXEC pidfd_open sched_getaffinity posix_fadvise waitid"),
    ("resource", "prlimit"),
    ("select", "epoll EPOLLIN"),
    ("signal", "pidfd_send_signal"),
    ("socket", "SO_PEERCRED"),
)


def as_on(platform: str, folder: Path) -> str:
    """Return an interpreter that believes to be on another platform, as far as agents ask."""
    lacks = "".join(
        f"import {module}\nfor name in '{names}'.split(): vars({module}).pop(name, None)\n"
        for module, names in LINUX_ALONE
    )
    prelude = folder / "prelude.py"
    prelude.write_text(f"import sys\nsys.platform = {platform!r}\n{lacks}")
    wrapper = folder / "python"
    first = f"exec(open({str(prelude)!r}).read())"
    wrapper.write_text(
        "#!/bin/sh\n"
        "one=$1 two=$2 three=$3 line=$4; shift 4\n"
        f'exec {sys.executable} "$one" "$two" "$three" "{first};$line" "$@"\n'
    )
    wrapper.chmod(0o755)
    return str(wrapper)
