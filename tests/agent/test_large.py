"""Large arguments on their way through the agent, beside everything else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from .driver import Driver

LARGE = 3_000_000


@pytest.mark.slow
def test_short_calls_do_not_get_between_the_arguments_of_a_large_one(
    driver: Driver, tmp_path: Path
) -> None:
    def hold(path: str) -> str:
        while not os.path.exists(path):
            time.sleep(0.005)
        return "held"

    def total(data: bytes) -> int:
        return sum(data[:: 1 << 12]) + len(data)

    def in_group(function: Any, *args: Any, queued: bool = False) -> int:
        return driver.run(function, *args, group=91, queued=queued, reuse=True)

    # Holds the group while its calls become known as short.
    held = in_group(hold, str(tmp_path / "go"))
    for _ in range(12):
        assert driver.result(in_group(total, b"")).value == 0
    queued: list[int] = []
    send = driver.bulk

    def send_with_short_calls_between(subject: int, parts: list[Any]) -> None:
        data = b"".join(parts)
        send(subject, [data[: len(data) // 2]])
        queued.extend(in_group(total, bytes([0, n]), queued=True) for n in range(4))
        send(subject, [data[len(data) // 2 :]])

    driver.bulk = send_with_short_calls_between  # type: ignore[method-assign]
    try:
        large = in_group(total, b"\1" * LARGE)
    finally:
        driver.bulk = send  # type: ignore[method-assign]
    assert driver.result(large).value == LARGE + len(range(0, LARGE, 1 << 12))
    (tmp_path / "go").touch()
    assert driver.result(held).value == "held"
    assert [driver.result(each).value for each in queued] == [2, 2, 2, 2]
