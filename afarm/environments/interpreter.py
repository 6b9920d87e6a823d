"""This side's own interpreter, packed for nodes that have none of its minor version.

Its program, its standard library and the shared libraries that these need but for the C
library, whose symbols must be no newer than the node's. Every file is told to look for
libraries beside itself, by `elf`: a variable (``LD_LIBRARY_PATH``) would hold for all that
calls start as well. The bundle is compressed, since it travels before links are known.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .._agent.build import base_interpreter
from ..errors import DependencyError
from .archive import write_archive
from .bundle import abi
from .elf import Elf, ElfError
from .files import File
from .places import cache_root

_FORMAT = "1"  # part of every fingerprint: raise it when the same files give another bundle

# What of the standard library stays here, by the names of its folders and files, and why. That
# nothing else imports it is held by a test.
LEFT_OUT = {
    "__pycache__": "bytecode travels with its source",
    "config": "for programs that embed Python (44 MB): headers, its library, its Makefile",
    "dist-packages": "installed packages travel as bundles of their own",
    "ensurepip": "installs pip; nothing is installed on a node (3.3 MB)",
    "idlelib": "an editor (8 MB); needs a display",
    "lib2to3": "rewrites Python 2; removed from Python 3.13 (3.7 MB)",
    "site-packages": "installed packages travel as bundles of their own",
    "test": "Python's own tests (123 MB)",
    "tests": "Python's own tests",
    "idle_test": "Python's own tests",
    "tkinter": "needs a display (4 MB), and Tcl and Tk with files of their own",
    "turtle.py": "needs tkinter",
    "turtledemo": "needs tkinter",
}

# Modules in machine code that belong to the above.
_LEFT_OUT_MODULES = ("_tkinter", "_test", "_xxtestfuzz", "_ctypes_test", "xxlimited", "xxsubtype")

# Of the C library itself: they fit the kernel and one another, and every node has its own.
_SYSTEM = re.compile(
    r"(lib(c|m|pthread|dl|rt|util|resolv|anl|mvec|BrokenLocale|thread_db|nss_files|nss_dns)"
    r"|linux-vdso|linux-gate|.*ld-linux.*|.*ld64)\.so.*"
)

# Level 6 makes 26 MB of 71 in 4 s, once (a Python 3.11 with its debugging symbols).
_LEVEL = 6

# Seconds that a packed interpreter stays after its last use.
_KEPT = 60 * 24 * 3600

# Many nodes may want it at once.
_packing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Interpreter:
    """This side's interpreter, packed.

    Attributes:
        digest: Names its content, and its folder on a node; see `_agent.manifest`.
        sha256: Of the packed bytes.
        size: Packed bytes: a gzip stream of a tar.
        unpacked: Bytes of the tar.
        program: The path of the interpreter in it.
        machine: What ``uname -m`` says where it runs.
        glibc: The version of the GNU C library that it needs at least.
        version: Of Python.
        path: Where it lies here.
    """

    digest: str
    sha256: str
    size: int
    unpacked: int
    program: str
    machine: str
    glibc: tuple[int, int]
    version: str
    path: str


def pack_interpreter(folder: Path | None = None) -> Interpreter:
    """Return this interpreter, packed now unless the cache has it. Blocks: disk and processor.

    Args:
        folder: The cache; default: one of its own in `cache_root`.

    Raises:
        DependencyError: If it cannot be shipped: the message says why.
    """
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        raise DependencyError(
            f"it is {sys.implementation.name} of {sys.platform}, and only CPython of Linux travels",
            names=["python"],
        )
    folder = cache_root() / "interpreters" if folder is None else folder
    try:
        files = sorted(_program_files(), key=lambda file: file.name)
        path = folder / f"{_fingerprint(files)}.tar.gz"
        with _packing:
            found = _cached(path)
            if found is None:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                found = _pack(files, path)
    except (OSError, ElfError, subprocess.SubprocessError) as exc:
        raise DependencyError(
            f"this side's own interpreter cannot be packed: {exc}", names=["python"]
        ) from exc
    return found


def is_left_out(name: str) -> bool:
    """Return whether a file or folder of the standard library stays here, by its name."""
    return (
        name in LEFT_OUT
        or name.startswith(("config-", *_LEFT_OUT_MODULES))
        or name.endswith((".pyc", ".pyo"))
    )


def _program_files() -> Iterator[File]:
    """Yield the program and its standard library, as they lie here."""
    yield _file(_program(), base_interpreter())
    library = _library()
    places = dict.fromkeys(
        (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _dynamic_modules())
    )
    seen = set()
    for place in places:
        if not place or place in seen:
            continue
        below = f"{library}/lib-dynload" if place == _dynamic_modules() else library
        for parent, folders, names in os.walk(place):
            folders[:] = sorted(each for each in folders if not is_left_out(each))
            seen.add(parent)
            relative = os.path.relpath(parent, place)
            inside = below if relative == "." else f"{below}/{relative}"
            for name in names:
                path = os.path.join(parent, name)
                if not is_left_out(name) and os.path.isfile(path):
                    yield _file(f"{inside}/{name}", path)


def _program() -> str:
    return f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"


def _library() -> str:
    return f"lib/{os.path.basename(sysconfig.get_path('stdlib'))}"


def _dynamic_modules() -> str:
    return str(sysconfig.get_config_var("DESTSHARED") or "")


def _file(name: str, path: str) -> File:
    status = os.stat(path)
    executable = bool(status.st_mode & 0o100)
    return File(name, os.path.realpath(path), status.st_size, status.st_mtime_ns, executable)


def _fingerprint(files: Sequence[File]) -> str:
    lines = [f"{file.name}\0{file.path}\0{file.size}\0{file.mtime_ns}" for file in files]
    text = "\n".join([_FORMAT, abi(native=True), *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _cached(path: Path) -> Interpreter | None:
    try:
        fields = json.loads(path.with_suffix(".json").read_text())
        found = Interpreter(**{**fields, "glibc": tuple(fields["glibc"])})
        if path.stat().st_size != found.size:
            return None
        os.utime(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # absent, or cut off by a full disk: packed again
    return found


def _pack(files: Sequence[File], path: Path) -> Interpreter:
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=path.parent) as scratch:
        native = [file for file in files if file.native or file.name == _program()]
        libraries = [
            _file(f"lib/{name}", found) for name, found in sorted(_libraries(native).items())
        ]
        own = {file.name.removeprefix("lib/") for file in libraries}
        newest = (0, 0)
        travelling = [file for file in files if file not in native]
        for number, file in enumerate([*native, *libraries]):
            moved, glibc = _relocated(file, own, os.path.join(scratch, str(number)))
            newest = max(newest, glibc)
            travelling.append(moved)
        travelling.sort(key=lambda file: file.name)
        with open(os.path.join(scratch, "tar"), "w+b") as tar:
            packed = write_archive(tar, travelling, abi=abi(native=True))
            tar.seek(0)
            compressed = os.path.join(scratch, "tar.gz")
            with (
                open(compressed, "wb") as raw,
                gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as stream,
            ):
                shutil.copyfileobj(tar, stream, 1 << 20)
        with open(compressed, "rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        version = ".".join(map(str, sys.version_info[:3]))
        made = Interpreter(
            packed.digest, sha256, os.path.getsize(compressed), packed.size, _program(),
            os.uname().machine, newest, version, str(path),
        )  # fmt: skip
        os.replace(compressed, path)
        entry = os.path.join(scratch, "json")
        Path(entry).write_text(json.dumps(asdict(made)))
        os.replace(entry, path.with_suffix(".json"))
    _remove_unused(path.parent)
    return made


def _remove_unused(folder: Path) -> None:
    """Remove what was packed of interpreters that are not used, or not there, any more."""
    long_ago = time.time() - _KEPT
    for path in folder.glob("*.tar.gz"):
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            if path.stat().st_mtime < long_ago:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)


def _libraries(files: Sequence[File]) -> dict[str, str]:
    """Return the shared libraries that files load, by name: all but the C library's own.

    Raises:
        ElfError: If the interpreter itself needs one that is not here.
    """
    found: dict[str, str] = {}
    for file in files:
        done = subprocess.run(["ldd", file.path], capture_output=True, text=True, timeout=60)
        for line in done.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if not arrow or _SYSTEM.fullmatch(name):
                continue
            if rest.startswith("not found"):
                if file.name == _program():
                    raise ElfError(f"it needs {name}, which is not here")
                continue  # a module that cannot be imported here either
            found.setdefault(os.path.basename(name), rest.split(" (")[0])
    return found


def _relocated(file: File, own: set[str], target: str) -> tuple[File, tuple[int, int]]:
    """Return a file that looks for libraries that travel where they will lie, and its C library."""
    with open(file.path, "rb") as stream:
        data = stream.read()
    try:
        elf = Elf(data)
    except ElfError:
        return file, (0, 0)  # linked statically, or no machine code whatever its name says
    if own.isdisjoint(elf.needed):
        return file, elf.glibc
    up = "/".join([".."] * (file.name.count("/") - 1))
    place = {"bin": "$ORIGIN/../lib", "lib": f"$ORIGIN/{up}".rstrip("/")}[file.name.split("/")[0]]
    if os.path.normpath(elf.runpath.split(":")[0]) == place:
        return file, elf.glibc  # so it is in conda's
    with open(target, "wb") as stream:
        stream.write(elf.with_runpath(place))
    with contextlib.suppress(OSError):
        shutil.copystat(file.path, target)
    return File(file.name, target, os.path.getsize(target), 0, file.executable), elf.glibc
