"""Which files a distribution or a source tree consists of, and what each is called in its bundle.

In a bundle, ``site-packages/`` holds what is imported from there, ``prefix/`` what lies
beside it (``bin/``, ``share/``), and ``source/`` the user's own modules.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..resources import format_bytes
from .left_out import Rule, stays
from .modules import real_folder

if TYPE_CHECKING:
    from importlib.metadata import Distribution as Metadata

# Data sets and checkpoints that lie beside the code are not part of it; who wants such a
# file on the node passes it to the call.
LARGEST_SOURCE = 50 << 20

_PREFIX_FOLDERS = frozenset({"bin", "etc", "include", "lib", "libexec", "man", "share"})

# Written at installation, different from machine to machine, and of no use on a node.
_INSTALLERS_OWN = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})

NATIVE_SUFFIXES = (".so", ".dylib", ".pyd")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a bundle.

    Attributes:
        name: Its path in the bundle, with forward slashes.
        path: Where it lies here.
        size: Bytes.
        mtime_ns: Its time stamp: with the size, how a change is noticed.
        executable: Whether its owner may execute it.
        recorded: The SHA-256 that its installer has noted, as in RECORD; empty if none.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    executable: bool
    recorded: str = ""

    @property
    def native(self) -> bool:
        """Whether it is machine code, which a node of another kind cannot use."""
        base = os.path.basename(self.name)
        return base.endswith(NATIVE_SUFFIXES) or ".so." in base


@dataclass(frozen=True, slots=True)
class SourceTree:
    """A module or a package of the user's own, which travels as it lies on the disk.

    Attributes:
        name: What it is called on the node: ``helpers.py`` or ``mypackage``.
        root: The module's file or the package's folder here.
        files: All of it, but hidden files and bytecode.
        left_out: What of it stays here, each with the reason.
    """

    name: str
    root: str
    files: tuple[File, ...]
    left_out: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of the files together."""
        return sum(file.size for file in self.files)


def recorded(metadata: Metadata) -> list[tuple[str, str, int | None]]:
    """Return what a distribution's own record lists: paths relative to its folder, hash, size."""
    record = metadata.read_text("RECORD")
    if record is None:
        return [(path, "", None) for path in _unrecorded(metadata)]
    rows = ([*row, "", ""] for row in csv.reader(record.splitlines()) if row)
    return [
        (
            row[0],
            row[1].removeprefix("sha256=") if row[1].startswith("sha256=") else "",
            int(row[2]) if row[2].isdigit() else None,
        )
        for row in rows
    ]


def has_record(metadata: Metadata) -> bool:
    """Return whether an installer has listed a distribution's files."""
    return metadata.read_text("RECORD") is not None


def base_folder(metadata: Metadata) -> str:
    """Return the folder that a distribution's recorded paths start from."""
    return real_folder(os.path.abspath(str(metadata.locate_file(""))))


@dataclass(frozen=True, slots=True)
class Content:
    """What is in an installed distribution.

    Attributes:
        files: What of it travels, sorted by name.
        changed: Recorded files that are gone, or have another size than was recorded.
        left_out: How many files stay behind by a `left_out.Rule`.
    """

    files: tuple[File, ...]
    changed: tuple[str, ...]
    left_out: int


def distribution_files(metadata: Metadata, *, editable: bool, rule: Rule | None = None) -> Content:
    """Return the files of an installed distribution.

    Bytecode is left out (what is valid comes with its source), and so is what the installer
    wrote for itself. Of an editable one only its metadata is taken: the code is a source tree.
    """
    base = base_folder(metadata)
    found: dict[str, File] = {}
    changed: list[str] = []
    left_out = 0
    for path, sha256, size in recorded(metadata):
        name = _name_in_bundle(path)
        if name is None or (editable and not _is_metadata(name)):
            continue
        if stays(rule, name):
            left_out += 1
            continue
        file = _file(name, os.path.normpath(os.path.join(base, path)), sha256)
        if file is not None:
            found[name] = file
        if (file is None or size not in (None, file.size)) and not editable:
            changed.append(path)
    files = tuple(found[name] for name in sorted(found))
    return Content(files, tuple(changed), left_out)


def source_tree(root: str, name: str) -> SourceTree:
    """Return a source tree with its files as they are now, sorted by name.

    Args:
        root: A module's file, or a package's folder.
        name: What it is called on the node, where ``source/`` is on the path.
    """
    if os.path.isfile(root):
        file = _file(f"source/{name}", root)
        return SourceTree(name, root, (file,) if file else (), ())
    left_out: list[str] = []
    found: list[File] = []
    inside = _inside(root)
    for path, relative in _walk(root):
        if _leads_out(path, inside):
            left_out.append(f"{path} leads out of the package")
            continue
        file = _file(f"source/{name}/{relative}", path)
        if file is None:
            continue
        if file.size > LARGEST_SOURCE and not file.native:
            left_out.append(f"{path} ({format_bytes(file.size)}) is too large to travel with code")
        else:
            found.append(file)
    found.sort(key=lambda file: file.name)
    return SourceTree(name, root, tuple(found), tuple(sorted(left_out)))


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yield path and relative path of each file, and of each link to a folder outside the root.

    A link to a folder inside is followed, unless it leads back to where it is.
    """
    inside = _inside(root)
    pending: list[tuple[str, str, tuple[str, ...]]] = [(root, "", ())]
    while pending:
        folder, relative, above = pending.pop()
        real = os.path.realpath(folder)
        if real in above:
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", "~")):
                    continue
                elsewhere = entry.is_symlink() and _leads_out(entry.path, inside)
                if elsewhere or not entry.is_dir():
                    yield entry.path, relative + name
                elif not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                    pending.append((entry.path, f"{relative}{name}/", (*above, real)))


def _inside(root: str) -> str:
    """Return what the real paths of all that belongs to a package begin with."""
    if os.path.islink(os.path.join(root, "__init__.py")):
        return ""  # a forest of links, as build systems make them
    return os.path.realpath(root) + os.sep


def _leads_out(path: str, inside: str) -> bool:
    return not (os.path.realpath(path) + os.sep).startswith(inside)


def _file(name: str, path: str, recorded: str = "") -> File | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None  # removed since it was installed, or a link that leads nowhere
    if not stat.S_ISREG(status.st_mode) or "\n" in name:  # a manifest has a line for each
        return None
    executable = bool(status.st_mode & stat.S_IXUSR)
    return File(name, path, status.st_size, status.st_mtime_ns, executable, recorded)


def _is_metadata(name: str) -> bool:
    return ".dist-info/" in name or ".egg-info" in name


def _name_in_bundle(recorded: str) -> str | None:
    path = PurePosixPath(recorded.replace(os.sep, "/"))
    if path.suffix == ".pyc" or "__pycache__" in path.parts or path.is_absolute():
        return None
    if (
        len(path.parts) > 1
        and path.parts[-2].endswith(".dist-info")
        and (path.name in _INSTALLERS_OWN)
    ):
        return None
    parts = path.parts
    if parts[0] != "..":
        return f"site-packages/{path}" if ".." not in parts else None
    inner = [part for part in parts if part != ".."]
    if not inner or inner[0] not in _PREFIX_FOLDERS or ".." in parts[len(parts) - len(inner) :]:
        return None
    return "prefix/" + "/".join(inner)


def _unrecorded(metadata: Metadata) -> Iterator[str]:
    """Yield the files of a distribution that some package manager installed without a record.

    They are told by the names of its top-level modules.
    """
    base = base_folder(metadata)
    listed = metadata.read_text("top_level.txt")
    name = re.sub(r"[-.]", "_", metadata.metadata["Name"])
    tops = listed.split() if listed else dict.fromkeys((name, name.lower()))
    with os.scandir(base) as entries:
        beside = {entry.name for entry in entries}
    for top in tops:
        folder = os.path.join(base, top)
        if os.path.isdir(folder):
            for _, relative in _walk(folder):
                yield f"{top}/{relative}"
        for suffix in (".py", *EXTENSION_SUFFIXES):
            if f"{top}{suffix}" in beside:
                yield f"{top}{suffix}"
    own = metadata_folder(metadata)
    if own in beside:
        path = os.path.join(base, own)
        yield from (f"{own}/{name}" for _, name in _walk(path)) if os.path.isdir(path) else (own,)


def metadata_folder(metadata: Metadata) -> str:
    """Return the name of the folder with a distribution's metadata; for Debian it may be a file."""
    path = getattr(metadata, "_path", None)  # of `PathDistribution`: there is no public name
    return os.path.basename(str(path)) if path is not None else ""
