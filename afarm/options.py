"""What a view of the farm sets for its calls, checked where it is stated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import ModuleType
from typing import Any

from ._core.request import ISOLATIONS
from .laid import Files, named_files
from .resources import Resources, parse_bytes
from .software import Added


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What was stated for the calls of one view; ``None`` where nothing was.

    The meanings are those of `Farm.options`.
    """

    category: str | None = None
    stated: Resources = field(default_factory=Resources)
    retries: int | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    isolation: str | None = None
    node: str | None = None
    priority: float | None = None
    env: Mapping[str, str] | None = None
    memo: bool | None = None
    cwd: str | None = None
    added: Added = field(default_factory=Added)
    files: Mapping[str, str] | None = None
    trace: bool | None = None

    def under(self, inner: CallOptions) -> CallOptions:
        """Return these options with what a nested view states instead."""
        changed: dict[str, Any] = {
            each.name: value
            for each in fields(self)
            if each.name not in ("stated", "env", "added", "files")
            and (value := getattr(inner, each.name)) is not None
        }
        changed["stated"] = inner.stated.over(self.stated)
        changed["added"] = self.added.also(inner.added)
        for name in ("env", "files"):
            if getattr(inner, name) is not None:
                changed[name] = {**(getattr(self, name) or {}), **getattr(inner, name)}
        return replace(self, **changed)

    def settings(self, stream: int | None, blobs: Mapping[str, int] | None = None) -> str:
        """Return what the worker must know, as JSON; empty if there is nothing.

        Args:
            stream: How many items of a stream may be ahead of the caller.
            blobs: The blob of each of the files.
        """
        found: dict[str, object] = {}
        if self.env:
            found["env"] = dict(self.env)
        if self.cwd is not None:
            found["cwd"] = self.cwd
        if stream is not None:
            found["stream"] = stream
        if blobs:
            found["files"] = dict(blobs)
        return json.dumps(found) if found else ""


def check_options(
    *,
    category: str | None,
    cores: float | None,
    memory: int | str | None,
    disk: int | str | None,
    gpus: int | None,
    wall_time: float | None,
    cpu_time: float | None,
    processes: int | None,
    retries: int | None,
    retry_on: type[BaseException] | Sequence[type[BaseException]] | None,
    isolation: str | None,
    node: str | None,
    priority: float | None,
    env: Mapping[str, str] | None,
    memo: bool | None,
    cwd: str | os.PathLike[str] | None,
    packages: Sequence[str] | None,
    modules: Sequence[str | ModuleType] | None,
    files: Files | None,
    trace: bool | None,
) -> CallOptions:
    """Return the options, or say which is wrong.

    Raises:
        ValueError: If a value is not possible.
        TypeError: If it is of the wrong type.
    """
    if files and cwd is not None:
        raise ValueError(
            "files= are laid into a scratch directory of the call's own, cwd= names another: "
            "state one of them"
        )
    return CallOptions(
        category=_text("category", category),
        stated=Resources(
            cores=_positive("cores", cores),
            memory=_memory(memory),
            disk=None if disk is None else parse_bytes(disk),
            gpus=_whole("gpus", gpus, least=0),
            wall_time=_positive("wall_time", wall_time),
            cpu_time=_positive("cpu_time", cpu_time),
            processes=_whole("processes", processes, least=1),
        ),
        retries=check_retries(retries),
        retry_on=_exceptions(retry_on),
        isolation=check_isolation(isolation),
        node=_text("node", node),
        priority=_finite("priority", priority),
        env=_environment(env),
        memo=None if memo is None else bool(memo),
        cwd=None if cwd is None else _text("cwd", os.fspath(cwd)),
        added=Added(_names("packages", packages), _names("modules", modules)),
        files=None if files is None else named_files(files),
        trace=None if trace is None else bool(trace),
    )


def check_isolation(isolation: str | None) -> str | None:
    """Return the isolation if there is such a one."""
    if isolation is not None and isolation not in ISOLATIONS:
        raise ValueError(f"isolation is 'fork', 'reuse' or 'auto', not {isolation!r}")
    return isolation


def check_retries(retries: int | None) -> int | None:
    """Return the number of retries if it is one."""
    return _whole("retries", retries, least=0)


def _finite(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return float(value)


def _positive(name: str, value: float | None) -> float | None:
    number = _finite(name, value)
    if number is not None and number <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return number


def _memory(value: int | str | None) -> int | None:
    if value is None:
        return None
    size = parse_bytes(value)
    if size == 0:
        raise ValueError(f"memory must be above 0, not {value!r}: no process does without")
    return size


def _text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {value!r}")
    if not value or "\0" in value:
        raise ValueError(f"{name} cannot be {value!r}")
    return value


def _whole(name: str, value: int | None, *, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def _exceptions(
    retry_on: type[BaseException] | Sequence[type[BaseException]] | None,
) -> tuple[type[BaseException], ...] | None:
    if retry_on is None:
        return None
    found = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"retry_on names exception types, not {one!r}")
    return found


def _environment(env: Mapping[str, str] | None) -> Mapping[str, str] | None:
    if env is None:
        return None
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env maps names to strings, not {name!r} to {value!r}")
        if "=" in name or "\0" in name + value:
            raise ValueError(f"env cannot hold {name!r}={value!r}")
    return dict(env)


def _names(option: str, values: Sequence[str | ModuleType] | None) -> tuple[str, ...]:
    if values is None:
        return ()
    if isinstance(values, (str, ModuleType)):
        values = (values,)
    names = [each.__name__ if isinstance(each, ModuleType) else each for each in values]
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{option} are names, not {name!r}")
    return tuple(sorted(set(names)))
