"""What is sent to a node first: the streamed modules, and the commands that start them.

The interpreter on the node is started with a line (`first_line`) that reads exactly
the bytes of `payload` from its standard input and runs them. They are the compressed

    program \\0 modules

where the program is `importer`, as source, and the modules are bytecode: the farm
insists on its own minor version on the node anyway, and every agent and template would
spend 40 ms on compiling them (measured: 100 ms to start instead of 60).
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import marshal
import pkgutil
import re
import sys
import zlib
from importlib.abc import InspectLoader
from types import CodeType
from typing import NamedTuple

from .docstrings import without_docstrings

# Everything a node needs. cloudpickle goes along for the workers; the agent itself
# never imports it.
STREAMED = (
    "afarm.resources",
    "afarm.errors",
    "afarm._wire",
    "afarm._monitor",
    "afarm._agent",
    "cloudpickle",
)

# The program in front of them.
IMPORTER = "afarm.transport.importer"

# A node without a usable Python answers with this exit code (and one line).
NO_PYTHON = 86

# What one says that would take help; see `shell_script`.
NONE = "afarm-none:"

# How code is told to be for this interpreter: implementation and minor version.
TAG = str(sys.implementation.cache_tag)


class _Module(NamedTuple):
    name: str
    is_package: bool
    file: str
    code: CodeType


def streamed_modules() -> list[str]:
    """Return the names of all modules that are sent to nodes, packages before their modules."""
    names = []
    for root in STREAMED:
        names.append(root)
        spec = importlib.util.find_spec(root)
        if spec is None:
            raise ModuleNotFoundError(f"{root}, which nodes need, is not installed here", name=root)
        for found in pkgutil.walk_packages(spec.submodule_search_locations or (), root + "."):
            names.append(found.name)
    return names


def _load(name: str) -> _Module:
    """Return one module, without running it; its code comes from the cached bytecode."""
    spec = importlib.util.find_spec(name)
    if spec is None or not isinstance(spec.loader, InspectLoader):
        raise ImportError(f"the code of {name}, which nodes need, cannot be read", name=name)
    code = spec.loader.get_code(name)
    if code is None:
        raise ImportError(f"the code of {name}, which nodes need, cannot be read", name=name)
    is_package = spec.submodule_search_locations is not None
    return _Module(name, is_package, spec.origin or name, code)


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    source = spec.loader.get_source(name) if spec and isinstance(spec.loader, InspectLoader) else ""
    if not source:
        raise ImportError(f"the source of {name}, which nodes need, cannot be read", name=name)
    return source


@functools.cache
def payload() -> bytes:
    """Return the bytes that make an interpreter an agent; made once in a process (80 ms)."""
    return _kept() or _pack(level=6)


@functools.cache
def near_payload() -> bytes:
    """Return the same for an agent on this machine: larger, but made in a third of the time."""
    return _kept() or _pack(level=0)


def _kept() -> bytes:
    """Return what this process was itself made from, if it is a worker: a call has a farm."""
    package = sys.modules[__name__.partition(".")[0]]
    kept: bytes = getattr(package, "__bootstrap__", b"")
    return kept


def payload_for(module: str, *arguments: str) -> bytes:
    """Return what makes an interpreter run ``main(*arguments)`` of a streamed module, and exit."""
    call = ", ".join(map(repr, arguments))
    return _pack(level=6, start=f"__import__({module!r}, fromlist=['main']).main({call})")


def _pack(level: int, start: str = "start()") -> bytes:
    program = f"{_source(IMPORTER)}\ninstall(b, d, {TAG!r})\n{start}\n"
    modules = [_load(name) for name in streamed_modules()]
    codes = {
        each.name: (each.is_package, each.file, marshal.dumps(without_docstrings(each.code)))
        for each in modules
    }
    return zlib.compress(program.encode() + b"\0" + marshal.dumps(codes), level)


async def ready_payload(program: bytes | None, *, near: bool = False) -> bytes:
    """Return what to send first: ``program``, or else a payload.

    Made in a thread, since the first time takes longer than the user's loop may stand.
    """
    if program is not None:
        return program
    return await asyncio.to_thread(near_payload if near else payload)


def first_line(length: int) -> str:
    """Return the Python line that reads so many bytes of standard input and runs them.

    It reads not one byte more: a buffer of one byte makes `BufferedReader` read the rest
    of what it was asked for straight into the result, so that who reads descriptor 0
    next finds what follows the payload. The line has no quotes, backslashes, dollars
    or exclamation marks: it passes through every shell.
    """
    return (
        f"import io,zlib;b=io.BufferedReader(io.FileIO(0,closefd=False),1).read({length});"
        "d=zlib.decompress(b);exec(d.split(bytes(1),1)[0],dict(b=b,d=d))"
    )


def interpreter_arguments(length: int) -> list[str]:
    """Return what follows the interpreter's name on a command line."""
    # -I: no PYTHON* variables, no user site, nothing of the working directory; -S: no
    # site-packages, which saves their .pth files too.
    return ["-I", "-S", "-c", first_line(length)]


# Where Pythons lie that an SSH session's PATH often lacks: it is not a login shell's.
PLACES = (
    "$HOME/.pyenv/versions/{version}*/bin",
    "/opt/*/bin",
    "/usr/local/bin",
    "$HOME/.local/bin",
    "$HOME/miniconda3/bin",
    "$HOME/miniconda3/envs/*/bin",
    "$HOME/anaconda3/bin",
    "$HOME/miniforge3/bin",
    "$HOME/.local/share/uv/python/*{version}*/bin",
)

# The beginning of a `case` in sh: what follows is done if $r is this user's, with no other writers.
IF_OURS = 'case $(ls -ld "$r/." 2>/dev/null) in d????-??-*) [ -O "$r" ] &&'

# What cannot be part of a word that sh, csh and fish all pass on as it is.
_UNSAFE = re.compile("['\"\\\\$`!\\x00-\\x1f\\x7f]")


def shell_root(scratch: str) -> str:
    """Return the word of sh for the folder of caches, as `_agent.cache.default_root` finds it."""
    if not scratch:
        return '"${AFARM_CACHE:-/var/tmp/afarm-$(id -u 2>/dev/null)}"'
    if scratch == "~" or scratch.startswith("~/"):
        return f'"$HOME{scratch[1:]}"'
    return f'"{scratch}"'


def shell_script(
    python: str | None = None, *, length: int, scratch: str = "", helped: int | None = None
) -> str:
    """Return the script for ``/bin/sh -c`` that finds a Python and becomes it.

    Candidates are asked for their version, with standard input kept from them: what
    waits there is the payload. One that is a broken link, a shim without a version
    behind it, or lacks zlib is passed over. What it says of itself is started: a shim
    would take its time twice. There are no single quotes in it, and
    nothing that another shell would take for its own inside of them.

    Args:
        python: Take this one: a path, or a name to be found in PATH; ``~/`` is the home
            there. ``None``: look for one of this interpreter's minor version.
        length: Of the payload.
        scratch: What was stated of the folder of caches: interpreters that were sent there
            before are taken too.
        helped: Bytes of the first write, where this side answers a script that finds no Python
            (`contact`): it lets them go, says `NONE`, and runs what it is sent, each script
            behind a line with its length. ``None``: it gives up.

    Raises:
        ValueError: If ``python`` has characters that no shell would pass on.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    line = first_line(length)
    if python is not None:
        if not python or _UNSAFE.search(python):
            raise ValueError(
                f"python={python!r} is not a path that every shell passes on unchanged"
            )
        where = "$HOME" + python[1:] if python.startswith("~/") else python
        return (
            f'p=$(command -v "{where}") && exec "$p" -I -S -c "{line}"; '
            f'echo "afarm: there is no {where} here" >&2; exit {NO_PYTHON}'
        )
    places = " ".join(f"{place.format(version=version)}/python{version}" for place in PLACES)
    sent = help = ""
    if not _UNSAFE.search(scratch):
        # Only from a folder that is this user's and closed to other writers: it is executed.
        sent = f'"$i"/interpreters/*/bin/python{version}'
        find = f"r={shell_root(scratch)}; i=/nowhere; {IF_OURS} i=$r;; esac; "
    if helped is not None:
        # Not one byte more than was written; `head` may read ahead, but nothing follows yet.
        help = (
            "PATH=$PATH:/usr/bin:/bin; { "
            f"head -c {helped} >/dev/null 2>&1 || dd bs=1 count={helped} of=/dev/null 2>/dev/null; "
            f'}} && echo "{NONE}" && while read -r n; do eval "$(dd bs=1 count="$n" 2>/dev/null)"; '
            "done; "
        )
    return (
        f"{find if sent else ''}f=; for p in python{version} python3 python {places} {sent}; do "
        'q=$(command -v "$p" 2>/dev/null) || continue; '
        'v=$("$q" -I -S -c "import sys,zlib;'
        'print(sys.implementation.cache_tag,sys.version.split()[0],sys.executable)" '
        "</dev/null 2>/dev/null); "
        f'case "$v" in "{TAG} "*) exec "${{v#* * }}" -I -S -c "{line}";; esac; '
        'f="$f $q (${v:-unusable})"; done; '
        f'{help}echo "afarm: no {TAG} here; found:${{f:- no Python at all}}" >&2; exit {NO_PYTHON}'
    )


def shell_command(
    python: str | None = None,
    *,
    length: int | None = None,
    scratch: str = "",
    helped: int | None = None,
) -> str:
    """Return the command line for a node, whatever its user's login shell is.

    One argument in single quotes without anything special inside of them: sh, dash,
    bash, zsh, csh and fish all hand it to ``/bin/sh`` unchanged.

    Raises:
        ValueError: If ``python`` has characters that no shell would pass on.
    """
    length = len(payload()) if length is None else length
    script = shell_script(python, length=length, scratch=scratch, helped=helped)
    return f"exec /bin/sh -c '{script}'"
