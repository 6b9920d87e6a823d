"""What a node without a fitting Python is sent: scripts for sh, and Python to finish with.

They need /bin/sh, ls, mkdir, head or dd, and either tar and gzip or any Python 3.6. They print
lines that begin with a word of this module; see `contact`, which answers them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from .bootstrap import IF_OURS, NO_PYTHON, PLACES, TAG, first_line, shell_root

# What scripts say: facts; that they wait for an interpreter; that the payload is to follow.
PYTHON, MACHINE, LIBC, DONE = "afarm-python:", "afarm-machine:", "afarm-libc:", "afarm-done:"
SEND, GO = "afarm-send:", "afarm-go:"

_ASK = (
    "import sys; print(sys.implementation.cache_tag, '%d.%d.%d' % sys.version_info[:3],"
    " sys.executable)"
)

# What of the first look's places is narrowed to one version.
_ANYWHERE = " ".join(dict.fromkeys(place.replace("{version}", "3.") for place in PLACES))

_LOOK = f"""
seen=
look() {{
    for p in "$1"/python3 "$1"/python3.[0-9] "$1"/python3.[0-9][0-9]; do
        [ -x "$p" ] || continue
        v=$("$p" -I -S -c {shlex.quote(_ASK)} </dev/null 2>/dev/null) || continue
        case "$seen" in *"|$v|"*) continue;; esac
        seen="$seen|$v|"
        echo "{PYTHON}$v"
    done
}}
IFS=:
for d in $PATH; do look "${{d:-.}}"; done
unset IFS
for d in /usr/bin {_ANYWHERE}; do look "$d"; done
echo "{MACHINE}$(uname -s) $(uname -m)"
echo "{LIBC}$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1)"
echo "{DONE}"
"""

_INSTALL = """
umask 077
fail() {{ echo "afarm: $*" >&2; exit {no_python}; }}
elsewhere="name another folder with scratch="
r={root}
p=$r/interpreters/{digest}
t=$r/interpreters/.{digest}.$$
[ -e "$r" ] || mkdir -p "$r" 2>/dev/null || fail "cannot make $r; $elsewhere"
{if_ours} r=$r;; *) false;; esac || fail "$r is not a folder of this user alone; $elsewhere"
q=$p/{program}
if [ -e "$p" ]; then
    "$q" -I -S -c "import hashlib, json, socket, zlib" </dev/null 2>/dev/null || {{
        # Cut off when the machine went down, or somebody changed it.
        mv "$p" "$t.damaged" && chmod -R u+w "$t.damaged" && rm -rf "$t.damaged"
    }}
fi
if [ ! -e "$p" ]; then
    mkdir -p "$r/interpreters" && mkdir "$t" || fail "cannot write into $r; $elsewhere"
    trap 'chmod -R u+w "$t" 2>/dev/null; rm -rf "$t"' EXIT
    how="head -c {size}"
    head -c 1 </dev/null >/dev/null 2>&1 || how="dd bs=1 count={size}"
    echo "{send}"
    $how >"$t/packed" 2>/dev/null
    n=$(wc -c <"$t/packed")
    [ "$n" -eq {size} ] || fail "no room in $r for an interpreter: make room, or $elsewhere"
    if command -v sha256sum >/dev/null 2>&1; then
        case $(sha256sum <"$t/packed") in
            {sha256}*) ;;
            *) fail "the interpreter did not arrive as it was sent";;
        esac
    fi
    if command -v tar >/dev/null 2>&1 && command -v gzip >/dev/null 2>&1; then
        (cd "$t" && gzip -dc packed | tar xof -) 2>/dev/null
    elif [ -n {unpacker} ]; then
        {unpacker} -I -S -c {unpack} "$t" 2>/dev/null
    else
        fail "an interpreter cannot be unpacked: there is neither tar with gzip nor Python 3.6"
    fi || fail "no room in $r to unpack an interpreter: make room, or $elsewhere"
    e=$("$t/{program}" -I -S -c {finish} "$t" "$p" {sha256} </dev/null 2>&1) ||
        fail "the interpreter that was sent does not run from $r (noexec?): $e; $elsewhere"
    trap - EXIT
    [ ! -e "$t" ] || {{ chmod -R u+w "$t"; rm -rf "$t"; }}
fi
echo "{go}"
exec "$q" -I -S -c {line}
"""

# Any Python from 3.6 on. Without its filters (3.12 warns), which older ones do not have: what is
# unpacked was packed here.
_UNPACK = """
import os, sys, tarfile, warnings
warnings.simplefilter("ignore")
os.chdir(sys.argv[1])
with tarfile.open("packed", "r:gz") as archive:
    archive.extractall()
"""

# The interpreter that was sent puts itself in its place: what it writes is valid nowhere else.
_FINISH = """
import hashlib, importlib.util, json, os, py_compile, sys
made, place, sha256 = sys.argv[1:]
packed = os.path.join(made, "packed")
with open(packed, "rb") as file:
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        sys.exit("it did not arrive as it was sent")
os.unlink(packed)
for parent, _, names in os.walk(made):
    for name in names:
        path = os.path.join(parent, name)
        compiled = importlib.util.cache_from_source(path) if name.endswith(".py") else path
        if not os.path.exists(compiled):
            try:
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(path, compiled, doraise=True, invalidation_mode=mode)
            except py_compile.PyCompileError:
                pass
blocks = 0
for parent, _, names in os.walk(made):
    blocks += sum(os.lstat(os.path.join(parent, name)).st_blocks for name in names)
# What it takes of the cache, as bundles say it.
with open(os.path.join(made, "size.json"), "w") as file:
    json.dump(blocks * 512, file)
for parent, _, _ in os.walk(made, topdown=False):
    os.chmod(parent, 0o555)
# Its name may outlive a power cut that its content does not.
os.sync()
try:
    os.rename(made, place)
except OSError:
    if not os.path.isdir(place):  # else somebody was faster
        raise
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A Python on a node: how it names itself (``cpython-39``), its version, and where it is."""

    tag: str
    version: str
    path: str

    @property
    def unpacks(self) -> bool:
        """Whether it can unpack what is sent: 3.6 or newer."""
        return tuple(map(int, self.version.split(".")[:2])) >= (3, 6)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node is.

    Attributes:
        pythons: Those in its ``PATH`` and the usual places.
        machine: As ``uname -s -m`` says.
        libc: What it says of its C library; empty: nothing.
    """

    pythons: tuple[Found, ...]
    machine: str
    libc: str

    @property
    def fitting(self) -> Found | None:
        """A Python of this side's minor version, if there is one after all."""
        return next((each for each in self.pythons if each.tag == TAG), None)


def read_facts(lines: list[str]) -> Facts:
    """Return what `look_script` has printed, line by line."""
    pythons = []
    said = {MACHINE: "", LIBC: ""}
    for line in lines:
        word, colon, rest = line.partition(":")
        fields = rest.split(" ", 2)
        if word + colon == PYTHON and len(fields) == 3:
            pythons.append(Found(*fields))
        elif word + colon in said:
            said[word + colon] = rest.strip()
    return Facts(tuple(pythons), said[MACHINE], said[LIBC])


def look_script() -> str:
    """Return the script that prints what a node is, and ends with `DONE`."""
    return _LOOK


def run_script(python: str, length: int) -> str:
    """Return the script that says `GO` and becomes a Python that reads a payload so long."""
    return f"echo {GO}; exec {shlex.quote(python)} -I -S -c {shlex.quote(first_line(length))}"


def install_script(
    digest: str, sha256: str, size: int, program: str, *, scratch: str, unpacker: str, length: int
) -> str:
    """Return the script that keeps an interpreter and becomes it.

    It says `SEND` unless it has it, and `GO` before it reads the payload. What fails is told in
    one line on standard error, with the exit code of a node without Python.

    Args:
        digest: Names the interpreter's content.
        sha256: Of its packed bytes.
        size: How many these are.
        program: The path of the interpreter in it.
        scratch: What was stated of the folder of caches.
        unpacker: A Python there that can unpack it; empty: there is none.
        length: Of the payload.
    """
    home = scratch == "~" or scratch.startswith("~/")
    return _INSTALL.format(
        no_python=NO_PYTHON,
        root=shlex.quote(scratch) if scratch and not home else shell_root(scratch),
        digest=digest,
        sha256=sha256,
        size=size,
        program=program,
        if_ours=IF_OURS,
        unpacker=shlex.quote(unpacker),
        unpack=shlex.quote(_UNPACK),
        finish=shlex.quote(_FINISH),
        line=shlex.quote(first_line(length)),
        send=SEND,
        go=GO,
    )
