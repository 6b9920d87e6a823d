"""What a farm's record holds after real calls, and what a later farm makes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import afarm
from afarm.record import connect_to_read
from afarm.sizing import AutoSizer
from tests.farm import functions as do
from tests.farm.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.db"


@asynccontextmanager
async def farm_with(path: Path, **arguments: Any) -> AsyncIterator[afarm.Farm]:
    node = afarm.LocalNode(cores=2, memory="8 GiB")
    async with afarm.Farm([node], record=path, progress=False, **arguments) as farm:
        yield farm


def query(path: Path, statement: str) -> list[dict[str, Any]]:
    connection = connect_to_read(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(statement)]
    finally:
        connection.close()


async def test_every_call_is_in_the_record(path: Path) -> None:
    async with farm_with(path) as farm:
        good = [farm.submit(do.add, number) for number in range(20)]
        bad = farm.options(category="bad").submit(do.fail, KeyError, "nothing")
        cancelled = farm.submit(do.sleep, 60)
        await until(lambda: cancelled.state == "running")
        cancelled.cancel()
        await asyncio.gather(*good, bad, cancelled, return_exceptions=True)
        used = good[3].usage
    assert used is not None
    outcomes = query(path, "SELECT outcome, count(*) AS n FROM invocations GROUP BY outcome")
    assert {row["outcome"]: row["n"] for row in outcomes} == {
        "returned": 20,
        "failed": 1,
        "cancelled": 1,
    }
    [failure] = query(path, "SELECT * FROM failures")
    assert (failure["category"], failure["error"]) == ("bad", "KeyError: 'nothing'")
    [fourth] = query(path, "SELECT * FROM attempt ORDER BY number LIMIT 1 OFFSET 3")
    assert fourth["node"] == "local"
    assert fourth["outcome"] == "returned"
    assert fourth["used_memory"] == used.memory
    assert fourth["used_wall_time"] == used.wall_time
    assert query(path, "SELECT DISTINCT outcome FROM attempts WHERE category LIKE '%sleep'") == [
        {"outcome": "killed"}
    ]
    [run] = query(path, "SELECT * FROM runs")
    assert (run["state"], run["returned"], run["failed"]) == ("closed", 20, 1)
    [node] = query(path, "SELECT * FROM nodes")
    assert (node["cores"], node["memory_gib"]) == (2, 8)


async def test_each_attempt_of_a_call_is_in_the_record(path: Path) -> None:
    async with farm_with(path) as farm:
        flaky = farm.options(retries=2, retry_on=ValueError)
        with pytest.raises(ValueError):
            await flaky.submit(do.fail)
    attempts = query(path, "SELECT attempt, outcome FROM attempts")
    assert attempts == [{"attempt": n, "outcome": "raised"} for n in (1, 2, 3)]


@pytest.mark.slow
async def test_what_runs_and_what_waits_can_be_seen_from_outside(path: Path) -> None:
    async with farm_with(path) as farm:
        view = farm.options(cores=2, memory="1 GiB")
        long, later = view.submit(do.sleep, 60), view.options(category="later").submit(do.sleep, 1)
        await until(lambda: query(path, "SELECT * FROM running"))
        [waiting] = query(path, "SELECT * FROM waiting")
        assert waiting["category"] == "later"
        assert "local: full: cores: 0 of 2 free, 2 wanted" in waiting["why"]
        [running] = query(path, "SELECT * FROM running")
        assert running["node"] == "local"
        assert running["category"].endswith("sleep")
        long.cancel()
        later.cancel()
    assert query(path, "SELECT * FROM running") == []
    assert query(path, "SELECT * FROM waiting") == []
    stated = query(path, "SELECT DISTINCT stated FROM invocations")
    assert stated == [{"stated": "cores 2, memory 1.0 GiB"}]


async def test_farms_that_follow_each_other_share_a_record(path: Path) -> None:
    for number in (1, 2):
        async with farm_with(path) as farm:
            assert await farm.submit(do.add, number) == number + 1
    assert query(path, "SELECT run, returned FROM runs") == [
        {"run": 1, "returned": 1},
        {"run": 2, "returned": 1},
    ]


async def test_farms_that_are_open_at_once_share_a_record(path: Path) -> None:
    async with farm_with(path) as first, farm_with(path) as second:
        views = [farm.options(memo=True) for farm in (first, second)]
        await asyncio.gather(*(view.submit(do.add, n) for view in views for n in range(50)))
    counts = query(path, "SELECT run, count(*) AS n FROM invocation GROUP BY run")
    assert counts == [{"run": 1, "n": 50}, {"run": 2, "n": 50}]
    assert query(path, "SELECT count(*) AS n FROM result") == [{"n": 50}]
    assert query(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


async def test_a_record_that_cannot_be_used_is_told_before_any_node_is_opened(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.write_text("something else " * 100)
    farm = afarm.Farm([afarm.LocalNode()], record=other)
    with pytest.raises(afarm.RecordError, match="cannot be used"):
        await farm.open()
    assert farm.nodes == ()


# --- what was learned


async def test_a_later_farm_begins_with_the_sizes_learned(path: Path) -> None:
    async with farm_with(path) as farm:
        for _ in range(8):
            await farm.submit(do.add, 1)
        first = farm.submit(do.add, 1)
        await first
    async with farm_with(path) as farm:
        second = farm.submit(do.add, 1)
        await second
        other = farm.submit(do.echo, 1)
        await other
    learned, again = first.attempts[0].allocation.memory, second.attempts[0].allocation.memory
    unknown = other.attempts[0].allocation.memory
    assert learned is not None
    assert unknown is not None
    assert again is not None
    assert again <= learned < unknown


class Noting(AutoSizer):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[set[str], float]] = []

    def load(self, state: Mapping[str, object], *, trust: float = 1.0) -> None:
        self.given.append((set(state), trust))
        super().load(state, trust=trust)


def make(text: str) -> Any:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(text, space)
    return space["work"]


async def test_sizes_of_changed_code_are_trusted_less(path: Path) -> None:
    work, changed = make("def work(): return 1"), make("def work(): return [2]")
    sizers = [Noting(), Noting(), Noting()]
    for sizer, function in zip(sizers, (work, work, changed), strict=True):
        async with farm_with(path, sizing=sizer) as farm:
            for _ in range(2):
                await farm.options(category="w").submit(function)
    assert [sizer.given for sizer in sizers[:2]] == [[], [({"w"}, 1.0)]]
    [(names, trust)] = sizers[2].given
    assert names == {"w"}
    assert trust < 1


class Forgetful(AutoSizer):
    """Fails to say what it knows."""

    def dump(self, categories: Iterable[str] | None = None) -> Mapping[str, object]:
        raise RuntimeError("I forgot")


async def test_a_sizer_that_fails_to_tell_costs_only_what_it_knows(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with farm_with(path, sizing=Forgetful()) as farm:
        assert await farm.submit(do.add, 1) == 2
    assert "the sizer's state is not kept" in caplog.text
    assert query(path, "SELECT outcome FROM invocations") == [{"outcome": "returned"}]


async def test_only_attempts_that_began_are_in_the_record(path: Path) -> None:
    async with farm_with(path, isolation="reuse") as farm:
        await asyncio.gather(*(farm.submit(do.add, number) for number in range(2000)))
    assert query(path, "SELECT DISTINCT outcome FROM attempt") == [{"outcome": "returned"}]
    [count] = query(path, "SELECT count(*) AS attempts, count(DISTINCT number) AS n FROM attempt")
    assert count == {"attempts": 2000, "n": 2000}


async def test_a_report_is_written_while_a_farm_is_open_and_after(
    path: Path, tmp_path: Path
) -> None:
    async with farm_with(path) as farm:
        await farm.options(category="category.a").submit(do.add, 1)
        farm.write_report(tmp_path / "open.html")
        await farm.options(category="category.b").submit(do.add, 1)
    await asyncio.to_thread(farm.write_report, tmp_path / "closed.html")
    early, late = ((tmp_path / name).read_text() for name in ("open.html", "closed.html"))
    assert "category.a" in early
    assert "2 cores, 8.0 GiB" in early
    assert "category.b" not in early
    assert "category.b" in late


async def test_a_report_without_a_record_says_what_to_do(tmp_path: Path) -> None:
    async with afarm.Farm(progress=False) as farm:
        with pytest.raises(ValueError, match=r"Farm\(record='farm.db'\)"):
            farm.write_report(tmp_path / "page.html")
