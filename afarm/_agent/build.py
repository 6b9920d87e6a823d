"""What is made from unpacked bundles: bytecode, and virtual environments.

Bytecode is compiled once, in the store, by children that only compile: nothing of what
arrived is imported. Its headers say "unchecked hash" (PEP 552), so that it holds for
hard links and for any time stamp.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Sequence

from .system import die_with_parent

# No call imports them, and they are most of the work: half of numpy's modules, four fifths
# of the time. What is not compiled here is compiled in memory by whoever imports it.
_TEST_FOLDERS = frozenset({"test", "tests"})

# One child for each megabyte of source, as far as there are cores.
_SOURCE_PER_CHILD = 1 << 20

# What linking fails with where a file system has no hard links, or no more of a file.
NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP)

# The kernel reads this much of a script's first line (BINPRM_BUF_SIZE before Linux 5.1).
_LONGEST_SHEBANG = 127


def platform_of_interpreter() -> dict[str, str]:
    """Return what machine code of an environment depends on."""
    import sysconfig  # 3 ms, and part of what `import afarm` reads

    system, _, _, _, machine = os.uname()
    abi = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
    return {"abi": str(abi), "system": system, "machine": machine}


def base_interpreter() -> str:
    """Return the interpreter outside of any virtual environment, as `venv` looks for it."""
    executable = os.path.abspath(getattr(sys, "_base_executable", None) or sys.executable)
    for candidate in (executable, os.path.realpath(executable)):
        prefix = os.path.dirname(os.path.dirname(candidate))
        if os.path.exists(os.path.join(prefix, "lib", _lib_folder(), "os.py")):
            return candidate
    return executable


def compile_sources(folder: str, names: Iterable[str]) -> None:
    """Compile the modules among some files, in children; what does not parse is left out.

    What came with its bytecode has it already.

    Args:
        folder: Where the files are.
        names: Their paths in it.

    Raises:
        OSError: If bytecode cannot be written.
    """
    names = list(names)
    compiled = {_source_of(name) for name in names if name.endswith(".pyc")}
    sources = [
        os.path.join(folder, name)
        for name in names
        if name.endswith(".py")
        and name not in compiled
        and not name.startswith("prefix/")
        and _TEST_FOLDERS.isdisjoint(name.split("/")[:-1])
    ]
    if not sources:
        return
    size = sum(os.stat(source).st_size for source in sources)
    count = max(1, min(_cores(), size // _SOURCE_PER_CHILD, len(sources)))
    # Neighbours in a folder are of like size; dealt out in turn, all children end together.
    children = [_fork_compiler(sources[start::count]) for start in range(count)]
    problem = 0
    for child in children:
        _, status = os.waitpid(child, 0)
        problem = problem or os.waitstatus_to_exitcode(status)
    if problem > 0:
        raise OSError(problem, os.strerror(problem), folder)
    if problem < 0:
        raise OSError(errno.EINTR, f"compiling was stopped by signal {-problem}", folder)


def build_environment(folder: str, final: str, stores: Sequence[str]) -> list[str]:
    """Make a virtual environment of unpacked bundles.

    Args:
        folder: An empty folder, in which it is made.
        final: Where it will be moved to; its scripts name that place.
        stores: The unpacked bundles. Of two with the same file, the first counts.

    Returns:
        Notes for people.

    Raises:
        OSError: If it cannot be written.
    """
    trees = [os.path.join(store, "source") for store in stores]
    site_packages = begin_environment(folder, [tree for tree in trees if os.path.isdir(tree)])
    copied = 0
    for store in stores:
        copied += link_tree(os.path.join(store, "site-packages"), site_packages)
        copied += link_tree(os.path.join(store, "prefix"), folder)
    name_interpreter(folder, final)
    return [f"{copied} files copied: hard links are not to be had"] if copied else []


def begin_environment(folder: str, trees: Sequence[str]) -> str:
    """Make a virtual environment with nothing in it; return its folder of packages.

    Args:
        folder: An empty folder, in which it is made.
        trees: Folders of the user's own sources.

    Raises:
        OSError: If it cannot be written.
    """
    interpreter = base_interpreter()
    site_packages = os.path.join(folder, "lib", _lib_folder(), "site-packages")
    os.makedirs(site_packages, mode=0o700)
    bin_folder = os.path.join(folder, "bin")
    os.mkdir(bin_folder, 0o700)
    os.symlink(interpreter, os.path.join(bin_folder, "python"))
    for name in ("python3", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        os.symlink("python", os.path.join(bin_folder, name))
    version = ".".join(str(part) for part in sys.version_info[:3])
    _write(
        os.path.join(folder, "pyvenv.cfg"),
        f"home = {os.path.dirname(interpreter)}\n"
        "include-system-site-packages = false\n"
        f"version = {version}\n",
    )
    if trees:
        _write(os.path.join(site_packages, "afarm.pth"), "\n".join(trees) + "\n")
    return site_packages


def make_read_only(folder: str) -> None:
    """Let nothing be added to or removed from a folder and those below it."""
    for parent, _, _ in os.walk(folder, topdown=False):
        os.chmod(parent, 0o555)


def remove_tree(folder: str) -> None:
    """Remove a folder with read-only folders in it; another process may do the same."""
    try:
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)
    except FileNotFoundError:
        return


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _lib_folder() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # a name may outlive a power cut that its content does not


def _source_of(bytecode: str) -> str:
    """Return the name of the source of ``x/__pycache__/y.cpython-311.pyc``; "" for another tag."""
    folder, _, name = bytecode.rpartition("/__pycache__/")
    base, _, tag = name.removesuffix(".pyc").rpartition(".")
    return f"{folder}/{base}.py" if tag == sys.implementation.cache_tag else ""


def _fork_compiler(sources: Sequence[str]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = errno.EIO
    try:
        die_with_parent(signal.SIGKILL, parent)
        code = _compile_all(sources)
    finally:
        os._exit(code)


def _compile_all(sources: Sequence[str]) -> int:
    """Compile in this process; return 0, or the number of the error that stopped it."""
    import py_compile

    warnings.simplefilter("ignore")
    folder = ""
    for source in sources:
        parent, name = os.path.split(source)
        target = os.path.join(parent, "__pycache__")
        try:
            if parent != folder:
                os.makedirs(target, mode=0o700, exist_ok=True)
                folder = parent
            compiled = os.path.join(target, f"{name[:-3]}.{sys.implementation.cache_tag}.pyc")
            py_compile.compile(
                source,
                compiled,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            os.chmod(compiled, 0o444)
        except OSError as exc:
            return exc.errno or errno.EIO
        except (py_compile.PyCompileError, ValueError, RecursionError, MemoryError):
            continue  # a template, or a test of the parser: no call imports it
    return 0


def link_tree(source: str, target: str) -> int:
    """Link every file of a folder into another; return how many had to be copied.

    What is there already stays.

    Raises:
        OSError: If a file can be neither linked nor copied.
    """
    copied = 0
    try:
        with os.scandir(source) as entries:
            found = list(entries)
    except FileNotFoundError:
        return 0
    for entry in found:
        there = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if not os.path.isdir(there):
                os.mkdir(there, 0o700)
            copied += link_tree(entry.path, there)
            continue
        try:
            os.link(entry.path, there)
        except FileExistsError:
            continue
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            _copy(entry.path, there)
            copied += 1
    return copied


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        while piece := old.read(1 << 20):
            new.write(piece)
        os.fchmod(new.fileno(), os.fstat(old.fileno()).st_mode & 0o777)


def name_interpreter(folder: str, final: str) -> None:
    """Give the scripts of an environment, which bundles carry with ``#!python``, their interpreter.

    Args:
        folder: The environment.
        final: Where it will lie.

    Raises:
        OSError: If one cannot be written.
    """
    bin_folder = os.path.join(folder, "bin")
    interpreter = os.path.join(final, "bin", "python")
    first = f"#!{interpreter}\n".encode("utf-8", "surrogateescape")
    if len(first) > _LONGEST_SHEBANG:
        # What pip writes: sh takes over, and for Python the second line is a string.
        first = b"#!/bin/sh\n'''exec' \"" + first[2:-1] + b'" "$0" "$@"\n\' \'\'\'\n'
    with os.scandir(bin_folder) as entries:
        scripts = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    for script in scripts:
        with open(script, "rb") as file:
            data = file.read()
        if data.startswith(b"#!python\n"):
            os.unlink(script)
            with open(script, "xb") as file:
                file.write(first + data[len(b"#!python\n") :])
            os.chmod(script, 0o555)
