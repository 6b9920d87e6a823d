"""Waiting for a condition in tests: never for a time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T], timeout: float = 20.0) -> T:
    """Return what the condition returns as soon as that is true."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not so after {timeout:g} s: {condition}")
        await asyncio.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def pid_in(path: Path) -> int:
    """Return the process number that somebody writes into a file."""
    return int(await until(lambda: path.exists() and path.read_text()))


def descendants() -> list[int]:
    """Return the processes that this one has started, and theirs."""
    found = []
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += children
            todo += children
    return found
