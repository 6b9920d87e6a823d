"""What lies in the cache of a node, and removing what nobody uses.

Run by itself (`afarm cache`): it prints `MARK` and then one JSON document.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from .cache import StoreError, claim, default_root, explain
from .leases import in_use, remove_failed_installs, remove_leftovers, remove_unused
from .room import bytes_of, files_below

# In front of the answer: anything may have been printed before it.
MARK = "afarm-cache:"

# Where which kind of thing lies. An environment goes before the bundles whose bytes it links.
_FOLDERS = (("environment", "environments"), ("bundle", "store"), ("interpreter", "interpreters"))


def entries(root: str) -> list[dict[str, object]]:
    """Return what a cache holds: kind, name, title, bytes, when it was used last, whether it is.

    Bytes are those on the disk that nothing else of the cache holds too: an environment is
    links into bundles, and has few of its own.

    Raises:
        OSError: If it cannot be read.
    """
    found: list[dict[str, object]] = []
    for kind, path in _things(root):
        found.append(
            {
                "kind": kind,
                "name": os.path.basename(path),
                "title": _title(kind, path),
                "bytes": bytes_of(path, shared=kind == "bundle"),
                "used": os.stat(path).st_mtime,
                "in_use": in_use(path),
            }
        )
    return found


def clear(root: str) -> dict[str, int]:
    """Remove what no process holds; return how many were removed, kept, and the bytes freed.

    Raises:
        OSError: If it cannot be read or written.
    """
    before = _bytes_below(root)
    removed = kept = 0
    for _, path in list(_things(root)):
        if remove_unused(path):
            removed += 1
        else:
            kept += 1
    for folder in ("environments", "store"):
        remove_leftovers(os.path.join(root, folder))
    remove_failed_installs(root)
    return {"removed": removed, "kept": kept, "freed": max(0, before - _bytes_below(root))}


def _things(root: str) -> Iterator[tuple[str, str]]:
    for kind, folder in _FOLDERS:
        try:
            names = sorted(os.listdir(os.path.join(root, folder)))
        except FileNotFoundError:
            continue
        for name in names:
            if not name.startswith("."):
                yield kind, os.path.join(root, folder, name)


def _title(kind: str, path: str) -> str:
    """Return what it is, for people."""
    if kind == "environment":
        try:
            with open(os.path.join(path, "bundles.json")) as file:
                bundles = len(json.load(file))
                return f"{bundles} bundle{'' if bundles == 1 else 's'}"
        except (OSError, ValueError):
            return "incomplete"
    if kind == "interpreter":
        return ", ".join(name for name in _names(path, "bin") if name.startswith("python"))
    for name in _names(path, "site-packages"):
        if name.endswith(".dist-info"):
            return name.removesuffix(".dist-info").replace("-", " ", 1)
    return ", ".join(_names(path, "source")) or "no name"


def _names(path: str, folder: str) -> list[str]:
    try:
        names = os.listdir(os.path.join(path, folder))
        return sorted(name for name in names if name != "__pycache__")
    except FileNotFoundError:
        return []


def _bytes_below(root: str) -> int:
    """Return the bytes on the disk below a folder; hard links count once."""
    seen = {(each.st_dev, each.st_ino): each.st_blocks * 512 for each in files_below(root)}
    return sum(seen.values())


def main(action: str, stated: str) -> None:
    """Print the answer to ``list`` or ``clear`` for the folder of caches."""
    root = default_root(stated)
    answer: dict[str, object] = {"root": root}
    try:
        if os.path.lexists(root):
            claim(root)
        answer |= clear(root) if action == "clear" else {"entries": entries(root)}
    except StoreError as exc:
        answer = {"problem": str(exc)}
    except OSError as exc:
        answer = {"problem": explain(exc, root)}
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
