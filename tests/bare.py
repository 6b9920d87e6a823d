"""Nodes that have a shell and a few programs, and no Python: roots of their own for commands."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import afarm

TOOLS = (
    *("cat", "chmod", "dd", "env", "gzip", "head", "id", "ls", "mkdir", "mv", "rm", "sha256sum"),
    *("tar", "uname", "wc"),
)

# The machine's libraries show; small file systems are for tests of faults.
_ENTER = """
set -e
root=$1 options=$2; shift 2
for folder in lib lib64 usr/lib; do
    [ ! -d /$folder ] || { mkdir -p $root/$folder; mount --bind /$folder $root/$folder; }
done
mount --bind /proc $root/proc
mount --bind /dev $root/dev
[ -z "$options" ] || mount -t tmpfs -o "mode=700,$options" tmpfs $root/small
exec chroot $root /bin/env -i PATH=/bin HOME=/home "$@"
"""


@functools.cache
def unavailable() -> str:
    """Return why there can be no such nodes here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "roots without Python need root on Linux"
    probe = ["unshare", "--mount", "--propagation", "private", "mount", "--bind", "/dev", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return f"nothing can be mounted here: {done.stderr.strip()}" if done.returncode else ""


@dataclass(frozen=True)
class BareRoot:
    """A root file system; `make` makes it.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, busybox: bool = False) -> BareRoot:
        """Return a root with `TOOLS`, or with those of busybox."""
        for name in ("bin", "dev", "home", "proc", "small", "tmp", "var/tmp", "usr"):
            (folder / name).mkdir(parents=True)
        (folder / "usr/bin").symlink_to("../bin")
        for name in TOOLS:
            found = shutil.which(name)
            if busybox and name != "env":
                (folder / "bin" / name).symlink_to("busybox")
            else:
                assert found is not None, name
                shutil.copy(os.path.realpath(found), folder / "bin" / name)
        if busybox:
            found = shutil.which("busybox")
            assert found is not None
            shutil.copy(os.path.realpath(found), folder / "bin" / "busybox")
            (folder / "bin/sh").symlink_to("busybox")
        else:
            shutil.copy(os.path.realpath("/bin/sh"), folder / "bin/sh")
        return cls(folder)

    def program(self, name: str, script: str) -> None:
        """Lay a program into its ``PATH``."""
        path = self.folder / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def node(self, *, small: str = "", **given: Any) -> Any:
        """Return it as a node.

        Args:
            small: Options of a file system that is mounted at ``/small``.
            given: Further arguments of `afarm.CommandNode`.
        """
        private = ["unshare", "--mount", "--propagation", "private"]
        enter = ["sh", "-c", _ENTER, "enter", str(self.folder), small]
        return afarm.CommandNode([*private, *enter], **{"cores": 2, "name": "bare", **given})
