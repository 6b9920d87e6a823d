"""The control groups a process is in, and what they and every group above them allow.

Both versions, alone or together, wherever they are mounted: ``/proc/self/cgroup`` names a
group in each hierarchy and ``/proc/self/mountinfo`` says which part of the hierarchy is
mounted where (cgroups(7), cgroup_namespaces(7)). In a container the mounted part begins
at its own group, or the names are relative to a namespace; what lies above cannot be seen
there, but version 1 tells the least memory limit of it all (``hierarchical_memory_limit``
in ``memory.stat``) and version 2 the processors (``cpuset.cpus.effective``).

What cannot be read does not limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from .bound import Bound

# A limit of version 1 that means none: the largest multiple of the page size.
_UNLIMITED = 1 << 60

_ESCAPE = re.compile(r"\\([0-7]{3})")


def read_text(path: str) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_number(path: str) -> float | None:
    """Return the number in a file; ``None`` for ``max``, and for what is no number at all."""
    text = read_text(path).strip()
    if not text.isascii() or not text.isdigit():
        return None
    value = int(text)
    return value if value < _UNLIMITED else None


def read_fields(path: str) -> dict[str, int]:
    """Return the numbers of a file with one name and number on each line."""
    found = {}
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isascii() and value.isdigit():
            found[name] = int(value)
    return found


def parse_cpus(text: str) -> frozenset[int]:
    """Return the processors of a list as the kernel writes it, ``0-3,8``: empty for garbage."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return frozenset()
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


class _Mount(NamedTuple):
    """A place where (a part of) a hierarchy is mounted.

    Attributes:
        kind: ``cgroup`` or ``cgroup2``.
        options: Those of the hierarchy; version 1 lists its controllers among them.
        root: The group that is seen at the place.
        place: The folder.
    """

    kind: str
    options: frozenset[str]
    root: str
    place: str


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _mounts(root: str) -> Iterator[_Mount]:
    for line in read_text(f"{root}/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(rest) >= 3 and rest[0] in ("cgroup", "cgroup2"):
            options = frozenset(rest[2].split(","))
            yield _Mount(rest[0], options, _unescape(fields[3]), _unescape(fields[4]))


def _below(group: str, root: str) -> list[str] | None:
    """Return the names that lead from the group at a mount to a group in it.

    ``None`` if the group is not in the mounted part. Names that begin with ``..`` lie
    outside of the reader's namespace; a mount of something still further out holds them,
    but does not say by which names.
    """
    names = [name for name in group.split("/") if name]
    roots = [name for name in root.split("/") if name]
    if names[: len(roots)] == roots:
        rest = names[len(roots) :]
        return rest if ".." not in rest else None
    above = names.count("..")
    return [] if roots == [".."] * len(roots) and len(roots) > above else None


class Group(NamedTuple):
    """A cgroup that can be looked at.

    Attributes:
        version: 1 or 2.
        name: As the kernel calls it.
        folder: Where its files are.
    """

    version: int
    name: str
    folder: str


class Cgroups:
    """The groups of this process.

    They are found once: a process moves only down from where it was, and what limited it
    there still does.

    Args:
        root: The folder that stands for ``/``.
    """

    def __init__(self, root: str = "/") -> None:
        root = root.rstrip("/")
        mounts = list(_mounts(root))
        self._groups: dict[str, list[Group]] = {}
        for line in read_text(f"{root}/proc/self/cgroup").splitlines():
            fields = line.split(":", 2)
            if len(fields) < 3:
                continue
            _, controllers, name = fields
            for controller in controllers.split(","):
                kind = "cgroup" if controllers else "cgroup2"
                for mount in mounts:
                    if mount.kind == kind and (not controllers or controller in mount.options):
                        chain = self._chain(root, mount, name)
                        known = self._groups.setdefault(controller, [])
                        known.extend(group for group in chain if group not in known)

    @staticmethod
    def _chain(root: str, mount: _Mount, name: str) -> Iterator[Group]:
        """Yield a group and each one above it, as far as a mount shows them."""
        names = _below(name, mount.root)
        if names is None:
            return
        version = 2 if mount.kind == "cgroup2" else 1
        place = root + mount.place.rstrip("/")
        for count in range(len(names), -1, -1):
            full = "/".join([mount.root.rstrip("/"), *names[:count]]) or "/"
            yield Group(version, full, "/".join([place, *names[:count]]))

    def of(self, controller: str) -> list[Group]:
        """Return the groups that govern a resource, the innermost of a hierarchy first."""
        return self._groups.get(controller, []) + self._groups.get("", [])

    def memory(self) -> Iterator[Bound]:
        """Yield every limit of memory, in bytes."""
        for group in self.of("memory"):
            if group.version == 2:
                # Above `memory.high` a group is not killed but slowed down until it is below.
                for file in ("memory.max", "memory.high"):
                    value = read_number(f"{group.folder}/{file}")
                    if value is not None:
                        yield Bound(value, f"{file} of cgroup {group.name}")
                continue
            value = read_number(f"{group.folder}/memory.limit_in_bytes")
            if value is not None:
                yield Bound(value, f"memory.limit_in_bytes of cgroup {group.name}")
            least = read_fields(f"{group.folder}/memory.stat").get("hierarchical_memory_limit")
            if least is not None and least < _UNLIMITED:
                yield Bound(least, f"hierarchical_memory_limit of cgroup {group.name}")

    def memory_left(self) -> Iterator[float]:
        """Yield for each group with a limit how many bytes may still be used below it.

        Page cache that nobody has used for a while counts as free: the kernel takes it
        back when it must.
        """
        for group in self.of("memory"):
            folder = group.folder
            if group.version == 2:
                limits = [read_number(f"{folder}/memory.{name}") for name in ("max", "high")]
                used = read_number(f"{folder}/memory.current")
                cache = "inactive_file"
            else:
                limits = [read_number(f"{folder}/memory.limit_in_bytes")]
                used = read_number(f"{folder}/memory.usage_in_bytes")
                cache = "total_inactive_file"  # without `total_`: of this group alone
            known = [limit for limit in limits if limit is not None]
            if known and used is not None:
                reclaimable = read_fields(f"{folder}/memory.stat").get(cache, 0)
                yield max(0.0, min(known) - used + reclaimable)

    def memory_pressure(self) -> str:
        """Return the file with the pressure (PSI) of the outermost group that has a limit."""
        found = ""
        for group in self.of("memory"):
            file = f"{group.folder}/memory.pressure"
            limited = read_number(f"{group.folder}/memory.max") is not None
            if group.version == 2 and limited and os.path.exists(file):
                found = file
        return found

    def quotas(self) -> Iterator[tuple[Bound, Group]]:
        """Yield every quota of processor time, in cores, and the group that has it."""
        for group in self.of("cpu"):
            if group.version == 2:
                file = "cpu.max"
                text, _, period = read_text(f"{group.folder}/{file}").strip().partition(" ")
                quota = int(text) if text.isascii() and text.isdigit() else 0
                each = int(period) if period.isascii() and period.isdigit() else 0
            else:
                file = "cpu.cfs_quota_us"  # -1: none
                quota = int(read_number(f"{group.folder}/{file}") or 0)
                each = int(read_number(f"{group.folder}/cpu.cfs_period_us") or 0)
            if quota > 0 and each > 0:
                yield Bound(quota / each, f"{file} of cgroup {group.name}"), group

    def processor_time(self, group: Group) -> float | None:
        """Return the seconds of processor time that a group has used, those below it included."""
        if group.version == 2:
            used = read_fields(f"{group.folder}/cpu.stat").get("usage_usec")
            return None if used is None else used / 1e6
        for other in self.of("cpuacct"):
            if other.version == 1 and other.name == group.name:
                nanoseconds = read_number(f"{other.folder}/cpuacct.usage")
                return None if nanoseconds is None else nanoseconds / 1e9
        return None

    def cpus(self) -> Iterator[tuple[frozenset[int], str]]:
        """Yield sets of processors to which this process is confined, and what confines it."""
        for group in self.of("cpuset"):
            old = ("cpuset.effective_cpus", "cpuset.cpus")
            for file in old if group.version == 1 else ("cpuset.cpus.effective",):
                found = parse_cpus(read_text(f"{group.folder}/{file}"))
                if found:
                    yield found, f"{file} of cgroup {group.name}"
