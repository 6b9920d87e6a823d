"""``afarm deps``: what of this machine travels with a function, how large it is, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..environments import Dependencies, Distribution, SourceTree, analyze
from ..resources import format_bytes


def find(function: Callable[..., Any], packages: Sequence[str]) -> Dependencies:
    """Return what a function needs, as `Farm.options(packages=...)` would send it.

    Raises:
        DependencyError: If one of the packages is not installed.
    """
    return analyze(function, packages=packages)


def describe(name: str, found: Dependencies, *, each_file: bool = False) -> str:
    """Return what travels, as text; with the size and name of each file if that is wanted."""
    contents = found.contents
    if contents:
        files = sum(len(content.files) for content in contents)
        lines = [f"{name}: {files:,} files, {format_bytes(found.bytes)}, travel to a node", ""]
        rows = [("", "files", "size", "because of")]
        rows += [
            (_title(each), f"{len(each.files):,}", format_bytes(each.bytes), _reason(each, found))
            for each in contents
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines += [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}"
            for row in rows
        ]
        if each_file:
            listed = [file for content in contents for file in content.files]
            lines += ["", *(f"{file.size:>12,}  {file.name}" for file in listed)]
    else:
        lines = [f"{name} needs nothing but the standard library"]
    remarks = [
        f"stays here of {each.name}: {each.left_out}"
        for each in found.distributions
        if each.left_out
    ]
    remarks += found.notes
    remarks += [
        f"{'not needed, ' if each.optional else 'MISSING: '}"
        f"{each.module} is not installed here, seen in {each.where}"
        for each in found.missing
    ]
    return "\n".join([*lines, *([""] if remarks else []), *remarks])


def as_json(found: Dependencies) -> dict[str, Any]:
    """Return the same as values for JSON."""
    return {
        "bytes": found.bytes,
        "distributions": [
            {
                "name": each.name,
                "version": each.version,
                "files": len(each.files),
                "bytes": each.bytes,
                "reason": _reason(each, found),
                "left_out": each.left_out,
                "changed": list(each.changed),
            }
            for each in found.distributions
        ],
        "local": [
            {
                "name": each.name,
                "root": each.root,
                "files": [file.name.removeprefix("source/") for file in each.files],
                "bytes": each.bytes,
                "reason": _reason(each, found),
                "left_out": list(each.left_out),
            }
            for each in found.local
        ],
        "missing": [
            {"module": each.module, "seen": each.where, "optional": each.optional}
            for each in found.missing
        ],
        "imports": [{"module": each.module, "seen": each.where} for each in found.modules],
        "notes": list(found.notes),
        "requirements": found.requirements(),
    }


def _title(content: Distribution | SourceTree) -> str:
    if isinstance(content, Distribution):
        return f"{content.name} {content.version}"
    return f"{content.name} ({content.root})"


def _reason(content: Distribution | SourceTree, found: Dependencies) -> str:
    return found.reasons.get(content.name, "")
