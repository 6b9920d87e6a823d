"""One call: its result, its error, its measurement."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from pathlib import Path

import numpy as np
import pytest

import afarm
from tests.farm import functions as do


async def test_a_call_returns_its_result(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    assert await view.submit(do.add, 3) == 4
    assert await view.submit(do.add, 3, b=5) == 8
    assert await view.submit(json.dumps, {"a": 1}) == '{"a": 1}'
    assert await view.submit(lambda x: x * 2, 21) == 42
    assert await view.submit(functools.partial(do.add, b=10), 1) == 11
    assert await view.submit([3, 1, 2].index, 2) == 2


async def test_a_coroutine_function_runs_there(farm: afarm.Farm, isolation: str) -> None:
    assert await farm.options(isolation=isolation).submit(do.add_async, 1, 2) == 3


async def test_submit_wants_something_to_call(farm: afarm.Farm) -> None:
    with pytest.raises(TypeError, match="takes a function"):
        farm.submit(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537, 1_000_000, 20_000_000])
async def test_results_and_arguments_of_any_size(
    farm: afarm.Farm, isolation: str, size: int
) -> None:
    view = farm.options(isolation=isolation)
    assert await view.submit(do.blob, size) == b"x" * size
    assert await view.submit(len, b"y" * size) == size


async def test_arrays_go_both_ways_and_arrive_writable(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    array = np.ones(3_000_000, np.uint8)
    assert await view.submit(do.total, array) == (3_000_000, True)
    for size in (10, 40_000, 5_000_000):
        found = await view.submit(do.zeros, size)
        found[0] = 1
        assert found.sum() == 1


async def test_changing_an_argument_after_submit_has_no_effect(farm: afarm.Farm) -> None:
    items = [1, 2, 3]
    invocation = farm.submit(sum, items)
    items.append(100)
    assert await invocation == 6


async def test_the_functions_own_exception_is_raised(farm: afarm.Farm, isolation: str) -> None:
    with pytest.raises(ValueError, match="no good") as caught:
        await farm.options(isolation=isolation).submit(do.fail, ValueError, "no good")
    notes = "\n".join(caught.value.__notes__)
    assert "node local" in notes
    assert "raise kind(*args)" in notes  # the remote traceback, with its source lines


async def test_cause_context_and_notes_are_kept(farm: afarm.Farm) -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        await farm.submit(do.fail_with_cause)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__notes__[0] == "a note of the function's own"


async def test_exception_groups_are_kept(farm: afarm.Farm) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await farm.submit(do.fail_in_group)
    assert [type(each) for each in caught.value.exceptions] == [ValueError, KeyError]


async def test_an_exception_that_does_not_unpickle_arrives_as_text(farm: afarm.Farm) -> None:
    with pytest.raises(afarm.RemoteError, match="3: no") as caught:
        await farm.submit(do.fail_awkwardly)
    assert caught.value.type_name.endswith("Awkward")
    assert "fail_awkwardly" in caught.value.traceback


@pytest.mark.parametrize(
    "kind",
    [KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration, asyncio.CancelledError],
)
async def test_exceptions_that_would_confuse_the_caller_arrive_as_remote_errors(
    farm: afarm.Farm, isolation: str, kind: type[BaseException]
) -> None:
    with pytest.raises(afarm.RemoteError, match=kind.__name__):
        await farm.options(isolation=isolation).submit(do.fail, kind)


async def test_a_result_that_cannot_be_pickled_is_named(farm: afarm.Farm, isolation: str) -> None:
    with pytest.raises(afarm.SerializationError, match=r"result of .*make_lock") as caught:
        await farm.options(isolation=isolation).submit(do.make_lock)
    assert caught.value.part == "result"


async def test_an_argument_that_cannot_be_pickled_arrives_through_the_invocation(
    farm: afarm.Farm,
) -> None:
    invocation = farm.submit(do.echo, threading.Lock())
    with pytest.raises(afarm.SerializationError, match="argument 1, of type lock"):
        await invocation


async def test_what_a_call_used_is_measured(farm: afarm.Farm, isolation: str) -> None:
    view = farm.options(isolation=isolation)
    invocation = view.submit(do.take_memory, 200 << 20)
    await invocation
    usage = invocation.usage
    assert usage is not None
    assert 200 << 20 <= usage.memory_resident < 300 << 20
    assert usage.memory_low <= 215 << 20
    assert usage.memory >= 199 << 20
    small = view.submit(do.add, 1)
    await small
    assert small.usage is not None
    assert small.usage.memory_resident < 150 << 20  # the larger call before it does not show
    busy = view.submit(do.burn, 0.3)
    await busy
    assert busy.usage is not None
    assert 0.25 < busy.usage.cpu_time < 0.6
    assert busy.usage.wall_time >= busy.usage.cpu_time * 0.7
    [attempt] = busy.attempts
    assert (attempt.number, attempt.node, attempt.outcome) == (1, "local", "returned")


async def test_a_function_whose_globals_were_rebound_runs_with_the_new_ones(
    farm: afarm.Farm, isolation: str
) -> None:
    view = farm.options(isolation=isolation)
    space: dict[str, object] = {"__name__": "__main__", "K": 1}
    exec("def scaled(x): return x * K", space)
    scaled = space["scaled"]
    assert callable(scaled)
    assert await view.submit(scaled, 5) == 5
    space["K"] = 3
    assert await view.submit(scaled, 5) == 15


async def test_random_numbers_are_fresh_for_each_call(farm: afarm.Farm, isolation: str) -> None:
    drawn = [v async for v in _calls(farm.options(isolation=isolation), 300)]
    assert len({first for first, _ in drawn}) == len(drawn)
    assert len({second for _, second in drawn}) == len(drawn)


async def _calls(view: afarm.Farm, count: int):  # type: ignore[no-untyped-def]
    async for value in view.map(lambda _: do.draw(), range(count)):
        yield value


async def test_each_call_starts_in_an_empty_directory_of_its_own(
    farm: afarm.Farm, isolation: str
) -> None:
    view = farm.options(isolation=isolation)
    places = [await view.submit(do.list_directory) for _ in range(3)]
    assert all(files == ["left"] for _, files in places)
    import os

    assert not any(os.path.exists(place) for place, _ in places)


async def test_the_working_directory_can_be_named(farm: afarm.Farm, tmp_path: Path) -> None:
    import os

    for place in (str(tmp_path), tmp_path):
        assert await farm.options(cwd=place).submit(os.getcwd) == str(tmp_path)


async def test_environment_variables_are_set_for_the_call_alone(
    farm: afarm.Farm, isolation: str
) -> None:
    import os

    view = farm.options(isolation=isolation)
    named = view.options(env={"AFARM_TEST_NAMED": "yes"})
    assert await named.submit(os.getenv, "AFARM_TEST_NAMED") == "yes"
    assert await view.submit(os.getenv, "AFARM_TEST_NAMED") is None
