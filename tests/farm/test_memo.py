"""Results that are kept: what counts as the same call, and what happens to what is not."""

from __future__ import annotations

import asyncio
import os
import pickle
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import afarm
from afarm.memo import Memo
from afarm.record import Results, connect_to_read
from tests.farm import functions as do

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.db"


@asynccontextmanager
async def memo_farm(path: Path) -> AsyncIterator[afarm.Farm]:
    node = afarm.LocalNode(cores=2, memory="8 GiB")
    async with afarm.Farm([node], record=path, progress=False) as farm:
        yield farm.options(memo=True)


def made(path: Path) -> list[tuple[str, int]]:
    """The outcomes of all calls in a record, with the attempts of each."""
    connection = connect_to_read(path)
    try:
        return connection.execute(
            "SELECT outcome, attempts FROM invocations ORDER BY run, number"
        ).fetchall()
    finally:
        connection.close()


def make(text: str) -> Any:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(text, space)
    return space["f"]


PID_AFTER = make(
    "def f(seconds):\n    import os, time\n    time.sleep(seconds)\n    return os.getpid()"
)
ECHO = make("def f(*values): return values")
RAN, RECALLED = ("returned", 1), ("recalled", 0)


async def test_a_later_farm_does_not_run_again_what_was_done(path: Path) -> None:
    async with memo_farm(path) as farm:
        assert await asyncio.gather(*(farm.submit(do.add, n) for n in range(5))) == [1, 2, 3, 4, 5]
    async with memo_farm(path) as farm:
        again = [farm.submit(do.add, n) for n in range(6)]
        assert await asyncio.gather(*again) == [1, 2, 3, 4, 5, 6]
        assert [len(one.attempts) for one in again] == [0, 0, 0, 0, 0, 1]
        assert farm.stats().returned == 6
    assert made(path) == [RAN] * 5 + [RECALLED] * 5 + [RAN]


async def test_the_same_farm_does_not_either(path: Path) -> None:
    async with memo_farm(path) as farm:
        assert await farm.submit(do.add, 1) == 2
        assert await farm.submit(do.add, 1) == 2
        together = [farm.submit(PID_AFTER, 0.2) for _ in range(5)]
        assert len(set(await asyncio.gather(*together))) == 1
    assert sorted(made(path)) == sorted([RAN, RECALLED, RAN, *[RECALLED] * 4])


async def test_without_memo_every_call_is_made(path: Path) -> None:
    for _ in range(2):
        async with memo_farm(path) as farm:
            await farm.options(memo=False).submit(do.add, 1)
    assert made(path) == [RAN, RAN]


async def test_a_function_that_was_changed_runs_again(path: Path) -> None:
    for text, wanted in (
        ("def f(x): return x + 1", RAN),
        ("# moved\n\ndef f(x): return x + 1", RECALLED),
        ("def f(x): return x + 2", RAN),
        ("K = 1\ndef f(x): return x + K", RAN),
        ("K = 2\ndef f(x): return x + K", RAN),
        ("K = 2\ndef f(x): return x + K", RECALLED),
    ):
        async with memo_farm(path) as farm:
            await farm.submit(make(text), 1)
        assert made(path)[-1] == wanted, text


async def test_a_module_of_the_users_that_was_changed_runs_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_module_for_memo.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    function = make("def f(x):\n    import own_module_for_memo as own\n    return own.g(x)")
    for added, wanted in ((1, RAN), (1, RECALLED), (20, RAN)):
        module.write_text(f"def g(x): return x + {added}")
        async with memo_farm(path) as farm:
            # Another function each time: what an analysed one needs is remembered.
            assert await farm.submit(make_equal(function), 1) == 1 + added
        assert made(path)[-1] == wanted, added


def make_equal(function: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(function))


async def test_environment_variables_count(path: Path) -> None:
    for value, wanted in (("a", "a"), ("b", "b"), ("a", "a")):
        async with memo_farm(path) as farm:
            assert await farm.options(env={"MEMO": value}).submit(os.getenv, "MEMO") == wanted
    assert made(path) == [RAN, RAN, RECALLED]


async def test_files_count_by_their_content(path: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    read = make("def f(name): return open(name).read()")
    for content, wanted in (("a", RAN), ("a", RECALLED), ("other", RAN)):
        data.write_text(content)
        async with memo_farm(path) as farm:
            assert await farm.options(files=data).submit(read, "data.txt") == content
        assert made(path)[-1] == wanted


async def test_failures_are_not_kept(path: Path) -> None:
    for _ in range(2):
        async with memo_farm(path) as farm:
            with pytest.raises(ValueError):
                await farm.submit(do.fail)
            with pytest.raises(afarm.SerializationError):
                await farm.submit(do.make_lock)
    assert made(path) == [("failed", 1)] * 4


async def test_large_results_lie_beside_the_record(path: Path) -> None:
    async with memo_farm(path) as farm:
        first = await farm.submit(do.zeros, 3_000_000)
        first[:] = 7  # the caller's own from here on
        assert not (await farm.submit(do.zeros, 3_000_000)).any()
    files = [file for file in path.with_name("farm.db.results").rglob("*") if file.is_file()]
    assert len(files) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert path.stat().st_size < 1_000_000
    async with memo_farm(path) as farm:
        again = await farm.submit(do.zeros, 3_000_000)
        assert again.nbytes == first.nbytes
        assert not again.any()
        again[0] = 1  # writable, and nobody else's
        assert not (await farm.submit(do.zeros, 3_000_000)).any()
    assert made(path) == [RAN, RECALLED, RECALLED, RECALLED]


@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
async def test_a_damaged_result_is_computed_again(path: Path, damage: str) -> None:
    async with memo_farm(path) as farm:
        await farm.submit(do.blob, 2_000_000)
    [file] = [one for one in path.with_name("farm.db.results").rglob("*") if one.is_file()]
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content[:-100] if damage == "cut" else b"y" * len(content))
    async with memo_farm(path) as farm:
        assert await farm.submit(do.blob, 2_000_000) == b"x" * 2_000_000
    async with memo_farm(path) as farm:
        assert await farm.submit(do.blob, 2_000_000) == b"x" * 2_000_000
    assert made(path) == [RAN, RAN, RECALLED]


async def test_objects_and_invocations_count_by_their_content(path: Path) -> None:
    async def run(number: int) -> None:
        async with memo_farm(path) as farm:
            ref = farm.put(np.full(300_000, number))
            earlier = farm.submit(do.add, number)
            later = farm.submit(ECHO, ref, [earlier])
            await later

    await run(1)
    await run(1)
    await run(2)
    assert made(path) == [RAN, RAN, RECALLED, RECALLED, RAN, RAN]


async def test_arguments_that_are_too_many_to_look_at_are_known_by_their_pickle(
    path: Path,
) -> None:
    many = [[number, {"a": (number, [number])}] for number in range(10_000)]
    for _ in range(2):
        async with memo_farm(path) as farm:
            assert await farm.submit(len, many) == 10_000
    assert made(path) == [RAN, RECALLED]


async def test_a_cancelled_call_is_not_waited_for_by_an_equal_one(path: Path) -> None:
    async with memo_farm(path) as farm:
        first = farm.submit(PID_AFTER, 60)
        second = farm.submit(PID_AFTER, 60)
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(20):
            while second.state != "running":
                await asyncio.sleep(0.01)
        second.cancel()
    assert all(outcome == "cancelled" for outcome, _ in made(path))


async def test_memo_without_a_record_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"Farm\(record='farm.db'\)"):
        afarm.Farm().options(memo=True)


async def test_a_stream_is_not_kept(path: Path) -> None:
    for _ in range(2):
        async with memo_farm(path) as farm:
            assert [item async for item in farm.stream(do.numbers, 3)] == [0, 1, 2]
    assert made(path) == [RAN, RAN]


async def test_a_call_that_is_cancelled_while_it_is_looked_for_holds_up_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on = threading.Event(), threading.Event()
    find = Results.find

    def slow_find(self: Results, key: str) -> Any:
        looking.set()
        assert go_on.wait(20)
        return find(self, key)

    monkeypatch.setattr(Results, "find", slow_find)
    async with memo_farm(path) as farm:
        first = farm.submit(do.add, 1)
        assert await asyncio.to_thread(looking.wait, 20)
        second = farm.submit(do.add, 1)
        first.cancel()
        go_on.set()
        async with asyncio.timeout(20):
            assert await second == 2
    assert made(path) == [("cancelled", 0), RAN]


async def test_a_call_that_is_cancelled_before_it_is_looked_for_holds_up_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, go_on = threading.Event(), threading.Event()
    key = Memo._key

    def slow_key(self: Memo, question: Any, call: Any) -> str:
        asking.set()
        assert go_on.wait(20)
        return key(self, question, call)

    monkeypatch.setattr(Memo, "_key", slow_key)
    async with memo_farm(path) as farm:
        first = farm.submit(do.add, 1)
        assert await asyncio.to_thread(asking.wait, 20)
        first.cancel()
        go_on.set()
        async with asyncio.timeout(20):
            assert await farm.submit(do.add, 1) == 2
            assert await farm.submit(do.add, 1) == 2
    assert made(path) == [("cancelled", 0), RAN, RECALLED]
