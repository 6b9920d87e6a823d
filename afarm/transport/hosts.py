"""Nodes out of what people write: names, files of names, TOML.

"local"                    this machine
"[user@]host[:port]"       SSH; an IPv6 address stands in brackets
"farm.toml", "./hosts"     a file (see `load_nodes`)
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from .base import Node
from .command import CommandNode
from .local import LocalNode
from .slurm import SlurmNodes
from .ssh import SSHNode

NodeSpec = str | os.PathLike[str] | Node | SlurmNodes
"""What stands for a node, or in the case of a path for a file of them."""

_ADDRESS = re.compile(
    r"""(?:(?P<user>[^@\s\[\]]+)@)?
        (?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\] | (?P<host>[^@:\s\[\]/]+))
        (?::(?P<port>\d{1,5}))?""",
    re.VERBOSE,
)
_EXPECTED = "'local' or '[user@]host[:port]', an IPv6 address in brackets"

_KINDS: dict[str, Callable[..., Node]] = {
    "ssh": SSHNode,
    "local": LocalNode,
    "command": CommandNode,
}


def parse_node(spec: str, **arguments: Any) -> Node:
    """Return the node that a string names.

    Args:
        spec: ``"local"`` or ``"[user@]host[:port]"``.
        arguments: Further arguments of `SSHNode` or `LocalNode`.

    Raises:
        ValueError: If it names none, or an argument does not fit.
    """
    text = spec.strip()
    if text == "local":
        return LocalNode(**arguments)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"{spec!r} is not a node: expected {_EXPECTED}")
    host = match["ipv6"] or match["host"]
    port = int(match["port"]) if match["port"] else None
    return SSHNode(host, **{"user": match["user"], "port": port, **arguments})


def load_nodes(path: str | os.PathLike[str]) -> list[Node]:
    """Return the nodes in a file.

    A name that ends in ``.toml`` makes it TOML: tables ``[[node]]`` or ``[node.NAME]``,
    whose keys are the arguments of `SSHNode` (or with ``kind = "local"`` or
    ``"command"`` of that kind), or a list ``nodes = ["lab1", "alice@lab2:2222"]``. Any
    other file has a node on each line, with settings behind it, and ``#`` comments:

        lab1
        alice@lab2:2222  cores=8 memory=16G   # shared

    Paths in a file are relative to its folder.

    Raises:
        ValueError: If something in it is not understood: names file, place and what is
            expected.
        OSError: If it cannot be read.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as exc:
        raise ValueError(f"{file} is not text in UTF-8: {exc}") from exc
    nodes = list(_toml(file, text) if file.suffix == ".toml" else _lines(file, text))
    if not nodes:
        raise ValueError(f"{file}: no nodes in it; expected one on each line: {_EXPECTED}")
    return nodes


def expand(nodes: NodeSpec | Iterable[NodeSpec] | None) -> list[Node]:
    """Return the nodes that `Farm` was given, each with a name of its own.

    Args:
        nodes: ``None`` for this machine; a node, a string, the path of a file, or several
            of them.

    Raises:
        ValueError: If something names no node.
        OSError: If a file cannot be read.
        TypeError: If something is none of these.
    """
    found: list[Node] = []
    for spec in _each(nodes):
        if isinstance(spec, os.PathLike):
            found.extend(load_nodes(spec))
        elif isinstance(spec, str):
            found.extend(load_nodes(spec) if _is_path(spec) else [parse_node(spec)])
        elif isinstance(spec, SlurmNodes):
            found.extend(spec)
        elif isinstance(spec, type) or not callable(getattr(spec, "connect", None)):
            raise TypeError(
                f"{spec!r} is not a node: expected {_EXPECTED}, a file, or a node object"
            )
        else:
            found.append(spec)
    if not found:
        raise ValueError("a farm needs a node; Farm() alone takes this machine")
    return list(_distinct(found))


def _each(nodes: NodeSpec | Iterable[NodeSpec] | None) -> Iterable[NodeSpec]:
    if nodes is None:
        return [LocalNode()]
    if isinstance(nodes, (str, os.PathLike)) or callable(getattr(nodes, "connect", None)):
        return [nodes]  # type: ignore[list-item]
    if isinstance(nodes, Iterable):
        return nodes
    raise TypeError(f"{nodes!r} is not a node: expected {_EXPECTED}, a file, or a node object")


def _is_path(spec: str) -> bool:
    """Return whether a string is meant as a file: a slash, or TOML; never because one exists."""
    return os.sep in spec or spec.startswith("~") or spec.endswith(".toml")


def _distinct(nodes: Iterable[Node]) -> Iterator[Node]:
    """Number the names that occur again: ``lab1``, ``lab1-2``."""
    taken: set[str] = set()
    for node in nodes:
        name, count = node.name, 1
        while name in taken:
            count += 1
            name = f"{node.name}-{count}"
        taken.add(name)
        yield node if name == node.name else _renamed(node, name)


def _renamed(node: Node, name: str) -> Node:
    if not is_dataclass(type(node)):
        raise ValueError(f"two nodes are named {node.name!r}: give one of them another name=")
    return replace(node, name=name)  # type: ignore[type-var]


def _lines(file: Path, text: str) -> Iterator[Node]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
            if not words:
                continue
            settings: dict[str, Any] = {}
            for word in words[1:]:
                key, equals, value = word.partition("=")
                if not equals:
                    raise ValueError(f"{word!r} is not a setting: expected key=value")
                settings[key] = value
            kind = "local" if words[0] == "local" else "ssh"
            yield parse_node(words[0], **_checked(kind, settings, file))
        except (ValueError, TypeError) as exc:
            raise ValueError(f"{file}, line {number}: {exc}") from exc


def _toml(file: Path, text: str) -> Iterator[Node]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{file}: {exc}") from exc
    unknown = sorted(document.keys() - {"node", "nodes"})
    if unknown:
        raise ValueError(f"{file}: unknown key {unknown[0]!r}: expected 'nodes', or tables 'node'")
    for place, table in _tables(file, document):
        try:
            yield parse_node(table) if isinstance(table, str) else _from_table(file, table)
        except (ValueError, TypeError) as exc:
            raise ValueError(f"{file}, {place}: {exc}") from exc


def _tables(file: Path, document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what describes each node, and where it stands."""
    listed = document.get("nodes", [])
    if not isinstance(listed, list):
        raise ValueError(f"{file}: 'nodes' is a list of names or tables")
    for number, each in enumerate(listed, 1):
        yield f"nodes, number {number}", each
    tables = document.get("node", [])
    if isinstance(tables, list):
        for number, each in enumerate(tables, 1):
            yield f"[[node]] number {number}", each
    elif isinstance(tables, dict):
        for name, each in tables.items():
            if not isinstance(each, dict):
                raise ValueError(f"{file}: [node.NAME] is a table; one node alone is [[node]]")
            kind = each.get("kind", "ssh")
            where = {"host": name} if kind == "ssh" else {}
            yield f"[node.{name}]", {"name": name, **where, **each}
    else:
        raise ValueError(f"{file}: 'node' is a table [[node]] or [node.NAME]")


def _from_table(file: Path, table: Any) -> Node:
    if not isinstance(table, dict):
        raise ValueError(f"{table!r} is neither a name nor a table")
    settings = dict(table)
    kind = settings.pop("kind", "ssh")
    if kind not in _KINDS:
        raise ValueError(f"kind = {kind!r}: expected one of {', '.join(map(repr, _KINDS))}")
    checked = _checked(kind, settings, file)
    needed = {"ssh": "host", "command": "argv"}.get(kind)
    if needed and needed not in checked:
        raise ValueError(f"a node of kind {kind!r} needs {needed!r}")
    if kind == "ssh" and ("@" in checked["host"] or ":" in checked["host"]):
        return parse_node(checked.pop("host"), **checked)
    return _KINDS[kind](**checked)


# How each setting is read: the type it must have in TOML, and what makes it of a word.
_NUMBERS: dict[str, Callable[[str], Any]] = {"port": int, "gpus": int, "cores": float}
_LISTS = ("labels", "argv", "keys", "known_hosts", "config")
_FILES = ("keys", "known_hosts", "config")


def _checked(kind: str, settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings of a node in the types that its class takes."""
    allowed = [each.name for each in fields(_KINDS[kind])]  # type: ignore[arg-type]
    for key in settings:
        if key not in allowed:
            raise ValueError(f"unknown setting {key!r}: expected one of {', '.join(allowed)}")
    return {key: _value(key, value, file) for key, value in settings.items()}


def _value(key: str, value: Any, file: Path) -> Any:
    if key in _NUMBERS:
        return _number(key, value)
    if key == "shell":
        if not isinstance(value, bool):
            raise ValueError(f"shell={value!r}: expected true or false")
        return value
    if key in _LISTS:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{key}={value!r}: expected a list of strings")
        if key == "labels" and isinstance(value, str):
            words = value.split(",")
        if key in _FILES:
            words = [str(file.parent / Path(word).expanduser()) for word in words]
        return tuple(words)
    if key in ("memory", "disk") and isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{key}={value!r}: expected a string")
    return value


def _number(key: str, value: Any) -> Any:
    try:
        if isinstance(value, bool):
            raise ValueError(value)
        number = _NUMBERS[key](value)
        if number != float(value):
            raise ValueError(value)
    except (ValueError, TypeError):
        raise ValueError(f"{key}={value!r}: expected a number") from None
    return number
