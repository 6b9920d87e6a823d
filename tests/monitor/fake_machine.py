"""Folders that look like ``/proc`` and ``/sys/fs/cgroup`` of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from afarm._monitor.machine import Machine

GIB = 1 << 30
KIB = 1 << 10


class FakeMachine:
    """A root folder to which files are added.

    Args:
        root: The folder.
        cpus: How many processors it has.
        memory: Bytes of memory, of which half are available.
    """

    def __init__(self, root: Path, *, cpus: int = 8, memory: int = 64 * GIB) -> None:
        self.root = root
        self._mounts = 30
        self._cpus = cpus
        self.write(
            "/proc/meminfo",
            f"MemTotal: {memory // KIB} kB\nMemFree: 1 kB\nMemAvailable: {memory // 2 // KIB} kB\n",
        )
        self.processors({})
        self.write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")

    def write(self, path: str, text: str) -> None:
        """Write a file, below folders that are made."""
        where = self.root / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)

    def add(self, path: str, line: str) -> None:
        """Add a line to a file."""
        where = self.root / path.lstrip("/")
        self.write(path, (where.read_text() if where.exists() else "") + line + "\n")

    def processors(self, busy: Mapping[int, int], passed: int = 0) -> None:
        """Let ``passed`` ticks have passed, of which processors were busy for so many."""
        lines = ["cpu  1 2 3 4 5 6 7 8 0 0"]
        for number in range(self._cpus):
            worked = busy.get(number, 0)
            lines.append(f"cpu{number} {worked} 0 0 {1000 + passed - worked} 0 0 0 0 0 0")
        self.write("/proc/stat", "\n".join([*lines, "intr 5 0 0"]) + "\n")

    def hierarchy(
        self, place: str, group: str, *, controllers: str = "", root: str = "/"
    ) -> None:  # fmt: skip
        """Mount a hierarchy, of version 2 unless it has controllers, and be in a group of it."""
        self._mounts += 1
        kind, options = ("cgroup", f"rw,{controllers}") if controllers else ("cgroup2", "rw")
        self.add(
            "/proc/self/mountinfo",
            f"{self._mounts} 22 0:{self._mounts} {root} {place} rw shared:1 - {kind} {kind}"
            f" {options}",
        )
        self.add("/proc/self/cgroup", f"{self._mounts}:{controllers}:{group}")

    def machine(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        affinity: set[int] | None = None,
        process_limits: Mapping[str, int] | None = None,
    ) -> Machine:
        """Return it as a process there sees it."""
        return Machine(
            str(self.root),
            environ=environ or {},
            affinity=frozenset(range(self._cpus) if affinity is None else affinity),
            process_limits=process_limits or {},
            host="node7.example.org",
        )
