"""Calls sized by what their arguments tell, on a real node."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

import afarm
from tests.farm.waiting import until

MIB = 1 << 20


def take(mebibytes: int, seed: float = 0.0) -> int:
    """Take so much memory: written, or it would not be there."""
    return len(b"x" * (mebibytes * MIB))


def length(data: bytes) -> int:
    return len(data)


def make(size: int) -> bytes:
    return bytes(size)


def read(path: str) -> int:
    return Path(path).stat().st_size


def allocated(invocation: afarm.Invocation[int]) -> int:
    return invocation.attempts[0].allocation.memory or 0


@pytest.mark.slow
@pytest.mark.integration
async def test_a_call_is_sized_by_the_argument_that_its_memory_follows(
    nothing_left: None, tmp_path: Path
) -> None:
    node = afarm.LocalNode(cores=4, memory="8 GiB")
    record = tmp_path / "farm.db"
    async with afarm.Farm([node], progress=False, isolation="fork", record=record) as farm:
        first = farm.submit(take, 10)
        await first
        for mebibytes in (400, 40, 20, 200, 80, 30, 300, 120, 60, 250, 160):
            await farm.submit(take, mebibytes, seed=mebibytes * 7919 % 13)
        small = farm.submit(take, 15, seed=1)
        large = farm.submit(take, mebibytes=350, seed=1)  # neither was seen before
        assert await asyncio.gather(small, large) == [15 * MIB, 350 * MIB]
        assert allocated(large) > 350 * MIB
        assert allocated(small) < 200 * MIB
        await until(lambda: farm.explain(large).state == "done")
        assert "memory by its mebibytes = 350" in str(farm.explain(large))
        assert "memory by" not in str(farm.explain(first)), "nothing was known then"
    with closing(sqlite3.connect(record)) as connection:
        calls = connection.execute("SELECT sized_by, sized_from FROM invocation ORDER BY number")
        assert calls.fetchone() == (None, None)
        assert ("mebibytes", 350.0) in calls.fetchall()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the sizer is told of each call that has ended."""
    found: list[dict[str, float]] = []
    observe = afarm.sizing.AutoSizer.observe

    def note(self, category, features, usage, *, exhausted):  # type: ignore[no-untyped-def]
        found.append(dict(features))
        observe(self, category, features, usage, exhausted=exhausted)

    monkeypatch.setattr(afarm.sizing.AutoSizer, "observe", note)
    return found


async def test_sizes_of_objects_files_and_results_are_features(
    farm: afarm.Farm, told: list[dict[str, float]], tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(777))
    assert await farm.submit(read, str(path)) == 777
    assert await farm.submit(length, farm.put(bytes(5000))) == 5000
    assert await farm.submit(length, data=farm.submit(make, 3000)) == 3000
    file, ref, number, result = told
    assert file == {"size(path)": 777.0}
    assert number == {"size": 3000.0}
    assert list(ref) == list(result) == ["size(data)"]
    assert 5000 < ref["size(data)"] < 5200  # with the pickle around it
    assert 3000 < result["size(data)"] < 3200


async def test_maps_streams_and_views_have_features_unless_memory_is_stated(
    farm: afarm.Farm, told: list[dict[str, float]]
) -> None:
    assert [size async for size in farm.map(make, [10])] == [bytes(10)]
    assert [item async for item in farm.stream(range, 2)] == [0, 1]
    await farm.options(category="mine", cores=1).submit(make, 20)
    await farm.options(memory="1 GiB").submit(make, 30)
    assert told == [{"size": 10.0}, {"argument 1": 2.0}, {"size": 20.0, "stated.cores": 1.0}, {}]


async def test_a_sizer_that_ignores_features_costs_no_look_at_arguments() -> None:
    node = afarm.LocalNode(cores=1, memory="1 GiB")
    async with afarm.Farm([node], progress=False, sizing="whole-node") as farm:
        invocation = farm.submit(length, b"abc")
        assert await invocation == 3
        assert invocation._call.features is None


def test_calls_of_an_executor_have_features(told: list[dict[str, float]]) -> None:
    node = afarm.LocalNode(cores=1, memory="1 GiB")
    with afarm.Executor([node], progress=False) as executor:
        future: Future[int] = executor.submit(length, b"abc")
        assert future.result(60) == 3
    assert told == [{"size(data)": 3.0}]
