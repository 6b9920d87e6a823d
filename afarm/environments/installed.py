"""What is installed here: distributions by name, the owner of a file, what requires what.

`importlib.metadata` and `packaging` are imported where they are used: together they take
35 ms, and a farm whose nodes are all in place needs neither.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .files import File, base_folder, distribution_files, has_record, recorded
from .left_out import Rule, rule_for
from .origin import origin_of

if TYPE_CHECKING:
    from importlib.metadata import Distribution as Metadata

    from packaging.requirements import Requirement


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution.

    Attributes:
        name: As its author spells it.
        version: As it was installed.
        files: What of it travels; of an editable one only the metadata.
        changed: Files that are not as they were installed: gone, or of another size.
        left_out: What stays behind and why that is safe; empty if nothing does.
        origin: The URL that it was installed from; empty if it came from an index.
    """

    name: str
    version: str
    files: tuple[File, ...]
    changed: tuple[str, ...] = ()
    left_out: str = ""
    origin: str = ""

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(file.size for file in self.files)


def not_as_installed(title: str, changed: Sequence[str]) -> str:
    """Return what is to be said of a distribution of which files have changed."""
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return (
        f"{title} is not as it was installed, and travels as it is: "
        f"{', '.join(changed[:3])}{more} changed or gone"
    )


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """What a distribution announces itself by, as a plug-in of another.

    Attributes:
        group: Who is meant: ``xarray.backends``.
        name: Its name in the group.
        module: The module that it leads to.
        distribution: The canonical name of what announces it.
    """

    group: str
    name: str
    module: str
    distribution: str


class Installed:
    """The distributions on a search path, read once.

    Args:
        search: As `sys.path`; of two distributions with one name, the first counts.
    """

    def __init__(self, search: Sequence[str]) -> None:
        self._by_name: dict[str, Metadata] = {}
        self._owners: dict[str, str] = {}
        self._described: dict[tuple[str, Rule | None], Distribution] = {}
        self._requirements: dict[str, list[Requirement]] = {}
        self._editable: dict[str, str] = {}  # folder of the project -> distribution
        self._tops: dict[str, set[str]] = {}  # editable distribution -> top-level modules
        from importlib.metadata import distributions

        for metadata in distributions(path=list(search)):
            name = _name_of(metadata)
            if name:
                self._by_name.setdefault(canonical(name), metadata)
        self._entry_points: tuple[EntryPoint, ...] | None = None
        # Of what has no record, only the names of top-level modules are known: it owns what
        # nothing else of the same namespace does.
        for key, metadata in sorted(
            self._by_name.items(), key=lambda item: not has_record(item[1])
        ):
            origin = origin_of(metadata)
            if origin is not None and origin.project:
                self._editable[origin.project] = key
                self._tops[key] = set((metadata.read_text("top_level.txt") or "").split())
                continue
            base = base_folder(metadata)
            for path, _, _ in recorded(metadata):
                if not path.startswith((".", "/")):
                    # The first to list a file owns it, as it does on the path.
                    self._owners.setdefault(f"{base}/{path}", key)

    def owner(self, file: str) -> str | None:
        """Return the name of the distribution that installed a file."""
        return self._owners.get(file)

    def editable_owner(self, file: str, top: str) -> str | None:
        """Return the name of the editable distribution that a top-level module belongs to.

        Its project may hold other modules, such as tests: those need not what it requires.
        """
        for project, name in self._editable.items():
            belongs = top in self._tops[name] or canonical(top) == name
            if belongs and file.startswith(project + os.sep):
                return name
        return None

    def is_editable(self, name: str) -> bool:
        """Return whether a distribution is installed as a link to its project."""
        return name in self._editable.values()

    def entry_points(self) -> tuple[EntryPoint, ...]:
        """Return all entry points but those of scripts."""
        if self._entry_points is None:
            self._entry_points = tuple(
                EntryPoint(point.group, point.name, point.module, key)
                for key, metadata in self._by_name.items()
                for point in metadata.entry_points
                if point.group not in ("console_scripts", "gui_scripts")
            )
        return self._entry_points

    def __contains__(self, name: str) -> bool:
        return canonical(name) in self._by_name

    def describe(self, name: str, imports: Collection[str] = ()) -> Distribution:
        """Return a distribution and its files, which are looked at once.

        Args:
            name: Its name.
            imports: Modules that are imported: see `left_out`.

        Raises:
            KeyError: If it is not installed.
        """
        key = canonical(name)
        rule = rule_for(key, imports)
        described = self._described.get((key, rule))
        if described is None:
            described = self._described[key, rule] = self._describe(key, rule)
        return described

    def _describe(self, key: str, rule: Rule | None) -> Distribution:
        metadata = self._by_name[key]
        content = distribution_files(metadata, editable=self.is_editable(key), rule=rule)
        left_out = ""
        if rule is not None and content.left_out:
            left_out = f"{content.left_out} files in folders {rule.folder}/: {rule.reason}"
        origin = origin_of(metadata)
        return Distribution(
            metadata.metadata["Name"],
            metadata.version,
            content.files,
            content.changed,
            left_out,
            origin.url if origin is not None else "",
        )

    def closure(self, roots: Iterable[Requirement]) -> dict[str, str]:
        """Return the names of all that the roots require, themselves included, sorted.

        Each comes with the name of what was first seen to require it; a root with ``""``.

        What a requirement names and is not installed is left out: it is missing here
        too, and the function works here.
        """
        pending = [(canonical(root.name), frozenset(root.extras)) for root in roots]
        seen: set[tuple[str, str]] = set()
        required_by: dict[str, str] = {}
        for name, _ in pending:
            required_by.setdefault(name, "")
        while pending:
            name, extras = pending.pop()
            if name not in self._by_name:
                continue
            for extra in ("", *extras):
                if (name, extra) not in seen:
                    seen.add((name, extra))
                    for required in self._required(name, extra):
                        required_by.setdefault(required[0], name)
                        pending.append(required)
        return {name: required_by[name] for name in sorted({name for name, _ in seen})}

    def _required(self, name: str, extra: str) -> Iterator[tuple[str, frozenset[str]]]:
        requirements = self._requirements.get(name)
        if requirements is None:
            requirements = self._requirements[name] = _requirements_of(self._by_name[name])
        for requirement in requirements:
            marker = requirement.marker
            # A requirement without an extra in its marker belongs to the distribution itself.
            if marker is None:
                wanted = not extra
            elif extra:
                wanted = marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
            else:
                wanted = marker.evaluate({"extra": ""})
            if wanted:
                yield canonical(requirement.name), frozenset(requirement.extras)


def canonical(name: str) -> str:
    """Return the one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_of(metadata: Metadata) -> str:
    """Return a distribution's name; parsing all of its metadata takes 50 times as long."""
    text = metadata.read_text("METADATA") or metadata.read_text("PKG-INFO")
    if not text:
        text = metadata.read_text("") or ""  # a single file, as Debian has some
    for line in text.split("\n\n", 1)[0].splitlines():
        if line[:5].lower() == "name:":
            return line[5:].strip()
    return ""


def _requirements_of(metadata: Metadata) -> list[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    requirements = []
    for line in metadata.requires or ():
        # Lines from before PEP 508 are left out, as pip leaves them out.
        with contextlib.suppress(InvalidRequirement):
            requirements.append(Requirement(line))
    return requirements


_lock = threading.Lock()
_latest: tuple[tuple[tuple[str, int], ...], Installed] | None = None


def installed(path: Sequence[str]) -> Installed:
    """Return what is installed on a search path; read again when one of its folders changed."""
    global _latest
    stamp = tuple((folder, _mtime(folder)) for folder in path)
    with _lock:
        if _latest is None or _latest[0] != stamp:
            _latest = (stamp, Installed(path))
        return _latest[1]


def _mtime(folder: str) -> int:
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return 0
