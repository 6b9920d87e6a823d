"""Checks and conversions that every kind of node does to its arguments."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from ..resources import Resources, parse_bytes


def stated_resources(
    *,
    cores: float | None,
    memory: int | str | None,
    disk: int | str | None,
    gpus: int | None,
) -> Resources:
    """Return the capacity that a user stated for a node.

    Raises:
        ValueError: If an amount cannot be one.
        TypeError: If it has the wrong type.
    """
    if cores is not None and not cores > 0:
        raise ValueError(f"a node has some cores, not cores={cores!r}")
    if gpus is not None and gpus < 0:
        raise ValueError(f"a node cannot have gpus={gpus!r}")
    return Resources(
        cores=None if cores is None else float(cores),
        memory=None if memory is None else parse_bytes(memory),
        disk=None if disk is None else parse_bytes(disk),
        gpus=gpus,
    )


def short_repr(node: Any) -> str:
    """Return a node as it would be written: what is not the default."""
    parts = []
    for each in fields(node):
        value = getattr(node, each.name)
        if each.default is MISSING:
            parts.append(repr(value))
        elif value != each.default and not (each.name == "name" and value == node.usual_name):
            parts.append(f"{each.name}={value!r}")
    return f"{type(node).__name__}({', '.join(parts)})"
