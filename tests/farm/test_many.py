"""map, stream, references, invocations as arguments, views, nodes and counts."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import afarm
from tests.farm import functions as do
from tests.farm.waiting import until


async def collect(iterator: AsyncIterator[object]) -> list[object]:
    return [item async for item in iterator]


async def slowly(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_map_gives_the_results_in_order(farm: afarm.Farm) -> None:
    assert await collect(farm.map(do.add, range(50))) == list(range(1, 51))
    assert await collect(farm.map(do.add, [1, 2, 3], [10, 20])) == [11, 22]
    assert await collect(farm.map(do.add, [])) == []


async def test_map_without_order_gives_each_when_it_is_there(
    farm: afarm.Farm, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    results = farm.map(
        do.pass_gate, ["first", "a", "b", "c"], itertools.repeat(gate), ordered=False
    )
    assert {await anext(results) for _ in range(3)} == {"a", "b", "c"}
    gate.touch()
    assert await collect(results) == ["first"]


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_takes_endless_iterables_and_stays_within_its_window(
    farm: afarm.Farm, ordered: bool
) -> None:
    pulled = 0

    def inputs() -> Iterator[int]:
        nonlocal pulled
        for number in itertools.count():
            pulled = number + 1
            yield number

    results = farm.map(do.add, inputs(), ordered=ordered, window=7)
    for taken in range(1, 30):
        await anext(results)
        assert pulled <= taken + 7
    await results.aclose()  # type: ignore[attr-defined]
    await until(lambda: not farm.stats().waiting and not farm.stats().running)


async def test_map_takes_async_iterables(farm: afarm.Farm) -> None:
    assert await collect(farm.map(do.add, slowly(20))) == list(range(1, 21))
    assert await collect(farm.map(do.add, slowly(20), itertools.count(1))) == list(range(1, 41, 2))


async def test_an_async_input_may_depend_on_earlier_results(farm: afarm.Farm) -> None:
    results: asyncio.Queue[object] = asyncio.Queue()

    async def chain() -> AsyncIterator[int]:
        value = 1
        for _ in range(5):
            yield value
            value = await results.get()  # type: ignore[assignment]

    found = []
    async for value in farm.map(do.add, chain()):
        found.append(value)
        results.put_nowait(value)
    assert found == [2, 3, 4, 5, 6]


async def test_an_error_ends_a_map_at_its_place(farm: afarm.Farm) -> None:
    found = []
    with pytest.raises(ZeroDivisionError):
        async for value in farm.map(lambda n: 1 // (3 - n), itertools.count()):
            found.append(value)
    assert found == [0, 0, 1]
    await until(lambda: not farm.stats().waiting and not farm.stats().running)


async def test_exceptions_can_be_handed_out_instead(farm: afarm.Farm) -> None:
    found = await collect(farm.map(lambda n: 1 // n, [1, 0, 2], return_exceptions=True))
    assert found[0] == 1
    assert isinstance(found[1], ZeroDivisionError)
    assert found[2] == 0


async def test_an_error_of_the_inputs_comes_at_its_place(farm: afarm.Farm) -> None:
    def inputs() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("the inputs' own")

    found = []
    with pytest.raises(OSError, match="the inputs' own"):
        async for value in farm.map(do.add, inputs()):
            found.append(value)
    assert found == [2, 3]


RAISED = [
    None, ValueError, StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt,
    asyncio.CancelledError, SystemExit, RuntimeError,
]  # fmt: skip


def maybe(kind: type[BaseException] | None, number: int) -> int:
    if kind is not None:
        raise kind()
    return number


def maybe_items(kind: type[BaseException] | None, number: int) -> Iterator[int]:
    yield from range(number)
    if kind is not None:
        raise kind()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(RAISED), max_size=12),
    ordered=st.booleans(),
    window=st.integers(1, 8),
    isolation=st.sampled_from(["fork", "reuse"]),
)
def test_a_map_gives_n_items_or_an_error_never_fewer(
    executor_farm: tuple[asyncio.Runner, afarm.Farm],
    kinds: list[type[BaseException] | None],
    ordered: bool,
    window: int,
    isolation: str,
) -> None:
    runner, farm = executor_farm

    async def run() -> None:
        view = farm.options(isolation=isolation)
        results = view.map(maybe, kinds, range(len(kinds)), ordered=ordered, window=window)
        found: list[int] = []
        error = None
        try:
            async for value in results:
                found.append(value)
        except Exception as exc:
            error = exc
        if any(kinds):
            assert error is not None
        else:
            assert error is None
            assert sorted(found) == list(range(len(kinds)))
        if ordered:
            assert found == list(range(len(found)))
            first = next((n for n, kind in enumerate(kinds) if kind), len(kinds))
            assert len(found) == first

    runner.run(run())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(RAISED),
    count=st.integers(0, 60),
    isolation=st.sampled_from(["fork", "reuse"]),
)
def test_a_stream_gives_all_its_items_or_an_error_never_fewer(
    executor_farm: tuple[asyncio.Runner, afarm.Farm],
    kind: type[BaseException] | None,
    count: int,
    isolation: str,
) -> None:
    runner, farm = executor_farm

    async def run() -> None:
        found: list[int] = []
        error = None
        try:
            async for value in farm.options(isolation=isolation).stream(maybe_items, kind, count):
                found.append(value)
        except Exception as exc:
            error = exc
        assert found == list(range(count))
        assert (error is not None) == (kind is not None)

    runner.run(run())


async def test_items_of_a_stream_arrive_while_it_runs(farm: afarm.Farm, tmp_path: Path) -> None:
    path = tmp_path / "reached"
    items = farm.stream(do.endless, str(path))
    assert [await anext(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    reached = await until(lambda: int(path.read_text() or 0))
    assert reached < 64  # it is held back while the caller takes nothing
    await items.aclose()  # type: ignore[attr-defined]
    await until(lambda: not farm.stats().running)


async def test_an_item_that_cannot_be_pickled_is_named(farm: afarm.Farm) -> None:
    found = []
    with pytest.raises(afarm.SerializationError, match="item 2, of type lock"):
        async for item in farm.stream(do.locks, 2):
            found.append(item)
    assert found == [0, 1]


async def test_async_generators_and_large_items_stream(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    assert await collect(view.stream(do.numbers_async, 40)) == list(range(40))
    found = await collect(view.stream(do.large_items, 6, 3_000_000))
    assert [(item[0], len(item)) for item in found] == [(n, 3_000_000) for n in range(6)]  # type: ignore[index,arg-type]


async def test_an_object_that_was_put_reaches_every_call(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    array = np.arange(1_000_000)
    ref = farm.put(array)
    sums = await asyncio.gather(*(view.submit(np.sum, ref) for _ in range(6)))
    assert {int(each) for each in sums} == {int(array.sum())}
    assert (await farm.get(ref) == array).all()
    small = farm.put({"a": [1]})
    assert await view.submit(do.echo, [small, small]) == [{"a": [1]}] * 2


async def test_an_invocation_as_an_argument_makes_the_call_wait(
    farm: afarm.Farm, isolation: str
) -> None:
    view = farm.options(isolation=isolation)
    first = view.submit(do.sleep, 0.2, 20)
    second = view.submit(do.add, first, b=2)
    third = view.submit(do.echo, {"all": [first, (second,)]})
    assert await third == {"all": [20, (22,)]}
    assert await view.submit(do.add, first) == 21  # done long ago


async def test_a_result_that_is_only_passed_on_is_not_unpickled_here(farm: afarm.Farm) -> None:
    made = farm.submit(do.make_picky, os.getpid())
    assert await farm.submit(lambda picky: picky.value, made) == 5
    with pytest.raises(afarm.SerializationError):
        await made


async def test_a_failed_argument_fails_the_dependent(farm: afarm.Farm) -> None:
    bad = farm.submit(do.fail, ValueError, "first")
    with pytest.raises(afarm.InvocationError, match="argument") as caught:
        await farm.submit(do.add, bad)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_cancelled_argument_cancels_the_dependent_and_not_the_other_way(
    farm: afarm.Farm,
) -> None:
    slow = farm.submit(do.sleep, 0.3, 1)
    dependent = farm.submit(do.add, slow)
    dependent.cancel()
    assert await slow == 1
    slow = farm.submit(do.sleep, 30, 1)
    dependent = farm.submit(do.add, slow)
    await asyncio.sleep(0)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dependent


async def test_it_is_a_future_in_every_way(farm: afarm.Farm) -> None:
    calls = [farm.submit(do.sleep, 0.01 * n, n) for n in range(5)]
    assert await asyncio.gather(*calls) == list(range(5))
    done, pending = await asyncio.wait([farm.submit(do.add, n) for n in range(3)])
    assert sorted(call.result() for call in done) == [1, 2, 3]
    assert not pending
    found = [await each for each in asyncio.as_completed([farm.submit(do.add, 1)])]
    assert found == [2]
    async with asyncio.TaskGroup() as group:

        async def one(n: int) -> int:
            return await farm.submit(do.add, n)

        tasks = [group.create_task(one(n)) for n in range(3)]
    assert [task.result() for task in tasks] == [1, 2, 3]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(farm.submit(do.sleep, 30), 0.2)
    assert await asyncio.shield(farm.submit(do.add, 5)) == 6


async def test_retry_on_names_the_exceptions_to_try_again_after(
    farm: afarm.Farm, tmp_path: Path
) -> None:
    path = tmp_path / "tries"

    def flaky(path: str) -> int:
        with open(path, "a+") as file:
            file.write("x")
            file.seek(0)
            tries = len(file.read())
        if tries < 3:
            raise ConnectionError(tries)
        return tries

    view = farm.options(retry_on=ConnectionError)
    call = view.submit(flaky, str(path))
    assert await call == 3
    assert [attempt.outcome for attempt in call.attempts] == ["raised", "raised", "returned"]
    path.unlink()
    with pytest.raises(ConnectionError):
        await view.options(retries=1).submit(flaky, str(path))
    path.unlink()
    with pytest.raises(ConnectionError):
        await farm.submit(flaky, str(path))


async def test_stated_needs_bound_how_many_run_at_once(farm: afarm.Farm, tmp_path: Path) -> None:
    import time

    view = farm.options(cores=2)
    spans = await asyncio.gather(
        *(view.submit(lambda: (time.time(), time.sleep(0.2), time.time())) for _ in range(6))
    )
    moments = sorted((t, d) for begin, _, end in spans for t, d in ((begin, 1), (end, -1)))
    assert max(itertools.accumulate(d for _, d in moments)) <= 2


async def test_what_no_node_could_hold_is_unschedulable(farm: afarm.Farm) -> None:
    with pytest.raises(afarm.Unschedulable, match="memory"):
        await farm.options(memory="100 TiB").submit(do.add, 1)
    with pytest.raises(afarm.Unschedulable, match="nowhere"):
        await farm.options(node="nowhere").submit(do.add, 1)


@pytest.mark.parametrize(
    "setting",
    [{"memory": "lots"}, {"cores": -1}, {"wall_time": 0}, {"retries": -1}, {"isolation": "x"}],
)
async def test_options_that_make_no_sense_are_refused_where_they_are_stated(
    setting: dict[str, object],
) -> None:
    with pytest.raises(ValueError):
        afarm.Farm().options(**setting)  # type: ignore[arg-type]


async def test_nodes_join_and_leave(farm: afarm.Farm) -> None:
    await farm.add_node(afarm.LocalNode(cores=1, name="second"))
    assert {node.name for node in farm.nodes} == {"local", "second"}
    assert await farm.options(node="second").submit(do.add, 1) == 2
    running = farm.options(node="second").submit(do.sleep, 0.3, "ended")
    await until(lambda: running.state == "running")
    await farm.remove_node("second")
    assert await running == "ended"
    assert {node.name for node in farm.nodes} == {"local"}
    with pytest.raises(ValueError, match="no node 'second'"):
        await farm.remove_node("second")
    with pytest.raises(afarm.NodeError, match="bad"):
        await farm.add_node(afarm.CommandNode(["/bin/false"], name="bad"))
    assert {node.name for node in farm.nodes} == {"local"}


async def test_a_node_that_is_removed_at_once_gives_its_calls_back(farm: afarm.Farm) -> None:
    await farm.add_node(afarm.LocalNode(cores=8, name="second"))
    view = farm.options(cores=4, memory="1 GiB")
    calls = [view.submit(do.sleep, 0.5, n) for n in range(3)]
    await until(lambda: all(call.state == "running" for call in calls))
    await farm.remove_node("second", drain=False)
    assert await asyncio.gather(*calls) == [0, 1, 2]


async def test_stats_add_up(farm: afarm.Farm) -> None:
    await asyncio.gather(*(farm.submit(do.add, n) for n in range(10)))
    with pytest.raises(ValueError):
        await farm.submit(do.fail)
    stats = farm.stats()
    assert (stats.returned, stats.failed, stats.waiting, stats.running) == (10, 1, 0, 0)
    assert stats.attempts == 11
    assert stats.done == 11
    [node] = farm.nodes
    assert node.capacity.cores == 4
    assert node.running == 0
    assert node.in_use.cores in (0, None)


def test_everything_works_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with afarm.Farm(progress=False) as farm:
            assert await farm.submit(do.add, 1) == 2
            assert await collect(farm.map(do.add, range(20))) == list(range(1, 21))
            assert len(await farm.submit(do.blob, 5_000_000)) == 5_000_000
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(farm.submit(do.sleep, 30), 0.2)

    uvloop.run(main())


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"priority": "high"}, TypeError),
        ({"priority": float("nan")}, ValueError),
        ({"memory": 0}, ValueError),
        ({"memory": True}, TypeError),
        ({"node": 3}, TypeError),
        ({"category": 3}, TypeError),
        ({"category": ""}, ValueError),
        ({"cwd": 5}, TypeError),
        ({"env": {"A": 1}}, TypeError),
        ({"retry_on": "ValueError"}, TypeError),
    ],
)
async def test_options_of_the_wrong_kind_never_reach_the_farm(
    setting: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        afarm.Farm().options(**setting)  # type: ignore[arg-type]


async def test_a_ref_is_for_the_arguments_of_its_own_farm(farm: afarm.Farm) -> None:
    ref = farm.put([1, 2, 3])
    async with afarm.Farm(progress=False) as other:
        with pytest.raises(afarm.SerializationError, match="another farm"):
            await other.submit(len, ref)
    with pytest.raises(afarm.SerializationError, match="among the arguments"):
        await farm.submit(lambda: ref)
    with pytest.raises(TypeError, match="what put"):
        await farm.get([1, 2, 3])  # type: ignore[arg-type]


async def test_an_invocation_is_for_arguments_and_not_for_closures(farm: afarm.Farm) -> None:
    call = farm.submit(do.add, 1)
    with pytest.raises(afarm.SerializationError, match="among the arguments"):
        await farm.submit(lambda: call)


async def test_results_that_were_only_passed_on_count_too(farm: afarm.Farm) -> None:
    await farm.submit(do.add, farm.submit(do.add, 1))
    assert farm.stats().returned == 2


async def test_a_large_result_that_was_passed_on_can_be_awaited_later_by_many(
    farm: afarm.Farm,
) -> None:
    made = farm.submit(do.blob, 2_000_000)
    assert await farm.submit(len, made) == 2_000_000

    async def look() -> int:
        return len(await made)

    assert await asyncio.gather(look(), look(), look()) == [2_000_000] * 3


class _Broken:
    """A sizer that fails in one of its methods."""

    def __init__(self, method: str) -> None:
        self.method = method

    def allocate(self, *args: object, **settings: object) -> afarm.Resources:
        if self.method == "allocate":
            raise RuntimeError("the sizer's own")
        return afarm.Resources(cores=1, memory=1 << 28)

    def observe(self, *args: object, **settings: object) -> None:
        raise RuntimeError("the sizer's own")


@pytest.mark.parametrize("method", ["allocate", "observe"])
async def test_a_sizer_that_fails_fails_every_call_and_lets_nobody_wait(
    nothing_left: None, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(20):
        async with afarm.Farm(sizing=_Broken(method), progress=False) as farm:  # type: ignore[arg-type]
            calls = [farm.submit(do.sleep, 0.1) for _ in range(5)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in found} == {afarm.FarmError}
            assert all("the sizer's own" in str(each) for each in found)
            with pytest.raises(afarm.FarmError, match="cannot go on"):
                await farm.submit(do.add, 1)
            with pytest.raises(afarm.NodeError, match="cannot go on"):
                await farm.add_node(afarm.LocalNode(name="second"))
            await farm.remove_node("local")
    assert [record for record in caplog.records if record.exc_info]


async def test_what_waits_when_the_last_node_was_removed_fails_at_the_end(
    nothing_left: None,
) -> None:
    async with asyncio.timeout(20):
        async with afarm.Farm(progress=False) as farm:
            await farm.remove_node("local")
            call = farm.submit(do.add, 1)
    with pytest.raises(afarm.Unschedulable, match="add_node"):
        await call


async def test_a_file_of_several_nodes_is_not_one_node(farm: afarm.Farm, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('nodes = ["a", "b"]')
    with pytest.raises(ValueError, match="names 2 nodes"):
        await farm.add_node(path)


async def test_others_have_their_turn_while_many_calls_are_taken_and_cancelled(
    farm: afarm.Farm,
) -> None:
    async def turns_until_over() -> int:
        turns = 0
        while farm.stats().waiting or farm.stats().running:
            turns += 1
            await asyncio.sleep(0)
        return turns

    await farm.submit(do.sleep, 0)
    calls = [farm.submit(do.sleep, 60) for _ in range(5_000)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    assert await turns_until_over() >= 10
