"""What a bundle holds, said at its beginning, so that each file is verified as it arrives.

The first file of a bundle is its manifest, a text of ASCII but for file names:

    afarm-bundle 2 cpython-311-x86_64-linux-gnu
    SHA256 - site-packages/pack/__init__.py
    SHA256 x prefix/bin/tool

one line for each file that follows, in that order. The digest that names a bundle is that of
the first line and the sorted lines of all but bytecode: it depends neither on the order
in which files are laid out nor on what some interpreter compiled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

MANIFEST = "manifest"

_HEAD = "afarm-bundle 2 "
_HEXADECIMAL = frozenset("0123456789abcdef")


class ManifestError(Exception):
    """What stands in the place of a manifest is none: the message says why."""


def line(name: str, sha256: str, *, executable: bool) -> str:
    """Return a manifest's line for one file."""
    return f"{sha256} {'x' if executable else '-'} {name}\n"


def text(abi: str, lines: Iterable[str]) -> bytes:
    """Return a manifest.

    Args:
        abi: What machine code and bytecode in the bundle are for.
        lines: As `line` makes them, in the order of the files.
    """
    return "".join([_HEAD, abi, "\n", *lines]).encode("utf-8", "surrogateescape")


def digest_of(manifest: bytes) -> str:
    """Return the digest that names the bundle with this manifest."""
    first, *lines = manifest.split(b"\n")[:-1]
    named = sorted(each for each in lines if not each.endswith(b".pyc"))
    content = b"".join(each + b"\n" for each in (first, *named))
    return hashlib.sha256(content).hexdigest()


def read(manifest: bytes) -> Mapping[str, str]:
    """Return the SHA-256 of each file, by its name, in the order of the files.

    Raises:
        ManifestError: If that is no manifest.
    """
    content = manifest.decode("utf-8", "surrogateescape")
    if not content.startswith(_HEAD) or not content.endswith("\n"):
        raise ManifestError("it does not begin with the list of what it holds")
    found: dict[str, str] = {}
    for each in content[:-1].split("\n")[1:]:
        sha256, name = each[:64], each[67:]
        if each[64:67] not in (" - ", " x ") or not name or not _HEXADECIMAL.issuperset(sha256):
            raise ManifestError(f"its list of what it holds has a line {each!r}")
        if name in found:
            raise ManifestError(f"{name!r} comes twice in its list of what it holds")
        found[name] = sha256
    return found
