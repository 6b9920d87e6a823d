"""Calls run, return what they return, and fail as they fail, in both isolations."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time

import numpy as np
import pytest

from afarm._agent import exceptions, references
from afarm._wire.messages import (
    Blob,
    Item,
    Kill,
    KillReason,
    More,
    Outcome,
    Recall,
    Returned,
    Stored,
)
from afarm._wire.payloads import join
from afarm.resources import Resources

from .driver import Driver

REUSE = pytest.mark.parametrize("reuse", [False, True], ids=["fork", "reuse"])


@REUSE
def test_a_call_returns_its_value_and_what_it_used(driver: Driver, reuse: bool) -> None:
    result = driver.call(lambda a, *, b: a + b, 40, b=2, reuse=reuse)
    assert result.value == 42
    usage = result.ended.usage
    assert usage.memory_resident > 1 << 20
    assert usage.memory >= usage.memory_low
    assert abs(usage.start - time.time()) < 60


@REUSE
@pytest.mark.parametrize("size", [0, 65_530, 65_535, 65_536, 65_537, 1 << 20])
def test_results_of_every_size_arrive(driver: Driver, size: int, reuse: bool) -> None:
    assert driver.call(lambda n: b"x" * n, size, reuse=reuse).value == b"x" * size


@REUSE
def test_arrays_of_100_mb_go_there_and_back(driver: Driver, reuse: bool) -> None:
    array = np.arange(12_500_000, dtype=np.float64)

    def double(a):
        a *= 2  # arguments arrive writable
        return a

    result = driver.call(double, array, reuse=reuse).value
    assert np.array_equal(result, array * 2)


@REUSE
def test_exceptions_come_with_type_and_traceback(driver: Driver, reuse: bool) -> None:
    def fail():
        raise ValueError("so it is")

    result = driver.call(fail, reuse=reuse)
    assert result.outcome is Outcome.RAISED
    name, text, traceback, pickled, _ = result.failure
    assert (name, text) == ("ValueError", "so it is")
    assert 'raise ValueError("so it is")' in traceback
    assert "_agent" not in traceback
    assert isinstance(exceptions.load(pickled), ValueError)


@REUSE
@pytest.mark.parametrize(
    "kind",
    [KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration, asyncio.CancelledError],
)
def test_exceptions_that_would_confuse_the_caller_are_only_told(
    driver: Driver, kind: type[BaseException], reuse: bool
) -> None:
    def fail():
        raise kind("no")

    result = driver.call(fail, reuse=reuse)
    assert result.outcome is Outcome.RAISED
    assert result.failure[0].endswith(kind.__name__)
    assert result.failure[3] is None


@REUSE
@pytest.mark.parametrize(("code", "exit"), [(3, 3), (None, 0), ("why", 1)])
def test_sys_exit_is_a_crash_with_its_code(driver: Driver, code, exit: int, reuse: bool) -> None:
    result = driver.call(lambda: sys.exit(code), reuse=reuse)
    assert (result.outcome, result.ended.exit) == (Outcome.CRASHED, exit)
    if code == "why":
        assert result.ended.output == b"why\n"


@REUSE
@pytest.mark.parametrize(
    ("way", "exit"),
    [
        (lambda: os._exit(5), 5),
        (lambda: os._exit(0), 0),
        (lambda: os.abort(), -6),
        (lambda: os.kill(os.getpid(), 9), -9),
        (lambda: __import__("ctypes").string_at(0), -11),
    ],
)
def test_the_death_of_the_process_is_told_with_its_exit(driver: Driver, way, exit, reuse) -> None:
    def die():
        print("last words", flush=True)
        way()

    result = driver.call(die, reuse=reuse)
    assert (result.outcome, result.ended.exit) == (Outcome.CRASHED, exit)
    assert result.ended.output == b"last words\n"
    assert driver.call(abs, -1, reuse=reuse).value == 1


@REUSE
def test_an_unpicklable_result_says_so(driver: Driver, reuse: bool) -> None:
    result = driver.call(lambda: (i for i in ()), reuse=reuse)
    assert result.outcome is Outcome.UNPICKLABLE
    assert "generator" in result.failure[4]


@REUSE
def test_what_cannot_be_loaded_is_unusable(driver: Driver, reuse: bool) -> None:
    blob = driver.blob(b"cno_such_module\nfunction\n.")
    result = driver.call(blob, reuse=reuse)
    assert result.outcome is Outcome.UNUSABLE
    assert result.failure[0] == "ModuleNotFoundError"


@REUSE
def test_coroutine_functions_are_run(driver: Driver, reuse: bool) -> None:
    async def later(x):
        await asyncio.sleep(0.001)
        return x

    assert driver.call(later, 5, reuse=reuse).value == 5


@REUSE
def test_results_made_of_the_user_s_own_classes_and_lambdas_return(
    driver: Driver, reuse: bool
) -> None:
    def make():
        return [lambda: 7]

    assert driver.call(make, reuse=reuse).value[0]() == 7


@REUSE
def test_streams_send_items_as_they_are_taken(driver: Driver, reuse: bool) -> None:
    def count():
        for i in range(6):
            yield i, np.full(20_000, i)
        return "end"

    invocation = driver.run(count, settings={"stream": 2}, reuse=reuse)
    driver.wait(lambda: len(driver.items.get(invocation, ())) == 2)
    driver.drain(0.1)
    assert len(driver.items[invocation]) == 2
    driver.send(More(invocation, 1, 100))
    assert driver.result(invocation).value == "end"
    assert [i for i, _ in driver.items[invocation]] == list(range(6))
    assert all((array == i).all() for i, array in driver.items[invocation])


def test_async_generators_stream(driver: Driver) -> None:
    async def count():
        for i in range(3):
            await asyncio.sleep(0)
            yield i

    invocation = driver.run(count, settings={"stream": 10})
    assert driver.result(invocation).value is None
    assert driver.items[invocation] == [0, 1, 2]


def test_a_stream_that_fails_sends_what_came_before(driver: Driver) -> None:
    def count():
        yield 1
        raise ValueError("then")

    invocation = driver.run(count, settings={"stream": 10})
    assert driver.result(invocation).outcome is Outcome.RAISED
    assert driver.items[invocation] == [1]


def test_put_objects_and_earlier_results_are_found_by_arguments(driver: Driver) -> None:
    array = np.arange(100_000)
    buffers: list = []
    data = pickle.dumps(array, 5, buffer_callback=lambda b: buffers.append(b.raw()))
    blob = driver.blob(b"".join(bytes(p) for p in join([data, *buffers])), "object")

    earlier = pickle.dumps({"n": 5})
    result = driver.call(
        lambda a, b: (int(a.sum()), b["n"]),
        payload=[[_pickled_call(blob)], [earlier]],
        refs=blob.to_bytes(8, "little"),
    )
    assert result.value == (int(array.sum()), 5)


class _Reference:
    def __init__(self, call, *args):
        self._call = call, args

    def __reduce__(self):
        return self._call


def _pickled_call(blob: int) -> bytes:
    args = (_Reference(references.ref, blob), _Reference(references.dependency, 1))
    return pickle.dumps((args, {}), 5)


def test_a_call_waits_for_its_blobs(driver: Driver) -> None:
    late = driver.number()
    invocation = driver.run(
        lambda a: a, payload=[[_only_ref(late)]], refs=late.to_bytes(8, "little")
    )
    data = b"".join(bytes(p) for p in join([pickle.dumps("here")]))
    driver.send(Blob(late, len(data), "", "object", ""))
    driver.bulk(late, [data])
    assert driver.result(invocation).value == "here"
    assert any(stored.blob == late for stored in driver.of(Stored))


def _only_ref(blob: int) -> bytes:
    return pickle.dumps(((_Reference(references.ref, blob),), {}), 5)


@REUSE
def test_settings_give_environment_and_directory(driver: Driver, reuse: bool) -> None:
    result = driver.call(
        lambda: (os.environ["COLOUR"], os.getcwd()),
        reuse=reuse,
        settings={"env": {"COLOUR": "red"}, "cwd": "/"},
    )
    assert result.value == ("red", "/")
    assert driver.call(lambda: os.environ.get("COLOUR"), reuse=reuse).value is None


@REUSE
def test_queued_attempts_follow_in_order(driver: Driver, reuse: bool) -> None:
    first = driver.run(time.sleep, 0.05, group=50, reuse=reuse)
    queued = [driver.run(abs, -i, group=50, queued=True, reuse=reuse) for i in range(20)]
    assert driver.result(first).ended.next == queued[0]
    for i, invocation in enumerate(queued):
        result = driver.result(invocation)
        assert result.value == i
        assert result.ended.next == (queued[i + 1] if i < 19 else 0)


@REUSE
def test_a_queued_attempt_of_an_ended_group_is_returned(driver: Driver, reuse: bool) -> None:
    lonely = driver.run(abs, -1, group=51, queued=True, reuse=reuse)
    driver.wait(lambda: any(r.invocation == lonely for r in driver.of(Returned)))
    assert lonely not in driver.results


@REUSE
def test_recall_gives_back_what_has_not_begun(driver: Driver, reuse: bool) -> None:
    first = driver.run(time.sleep, 0.2, group=52, reuse=reuse)
    second = driver.run(abs, -1, group=52, queued=True, reuse=reuse)
    driver.send(Recall(second, 1))
    driver.wait(lambda: any(r.invocation == second for r in driver.of(Returned)))
    assert driver.result(first).ended.next == 0
    assert second not in driver.results


@REUSE
def test_cancel_ends_a_call_within_a_second(driver: Driver, reuse: bool) -> None:
    invocation = driver.run(time.sleep, 100, reuse=reuse)
    driver.drain(0.1)
    asked = time.monotonic()
    driver.send(Kill(invocation, 1, KillReason.CANCELLED))
    assert driver.result(invocation).outcome is Outcome.KILLED
    assert time.monotonic() - asked < 1


@REUSE
def test_cancel_of_a_call_that_has_not_started_drops_it(driver: Driver, reuse: bool) -> None:
    first = driver.run(time.sleep, 0.2, group=53, reuse=reuse)
    second = driver.run(abs, -1, group=53, queued=True, reuse=reuse)
    driver.send(Kill(second, 1, KillReason.CANCELLED))
    driver.wait(lambda: any(r.invocation == second for r in driver.of(Returned)))
    driver.result(first)


@pytest.mark.slow
def test_many_short_calls_run_ahead_and_lose_nothing_when_a_worker_dies(driver: Driver) -> None:
    def work(i):
        if i == 150:
            os._exit(9)
        return i

    function = driver.function(work)
    first = driver.run(function, 0, group=54, reuse=True)
    rest = [driver.run(function, i, group=54, queued=True, reuse=True) for i in range(1, 400)]
    returned: set[int] = set()

    def done() -> bool:
        returned.update(r.invocation for r in driver.of(Returned))
        return all(i in driver.results or i in returned for i in [first, *rest])

    driver.wait(done)
    for i, invocation in enumerate([first, *rest]):
        if invocation in returned:
            assert invocation not in driver.results
        elif i == 150:
            assert driver.results[invocation].outcome is Outcome.CRASHED
        else:
            assert driver.results[invocation].value == i


@pytest.mark.slow
def test_a_slow_call_gives_back_what_lies_behind_it(driver: Driver) -> None:
    def work(i):
        # The first ones hold their lanes until the others have arrived behind them.
        time.sleep({0: 0.2, 1: 0.2, 60: 0.5}.get(i, 0))
        return os.getpid()

    function = driver.function(work)
    first = driver.run(function, 0, group=55, reuse=True)
    second = driver.run(function, 1, group=55, reuse=True)
    rest = [driver.run(function, i, group=55, queued=True, reuse=True) for i in range(2, 120)]
    for invocation in [first, second, *rest]:
        assert driver.result(invocation).value > 0


def test_items_are_messages_of_their_own(driver: Driver) -> None:
    invocation = driver.run(lambda: iter("ab"), settings={"stream": 5})
    driver.result(invocation)
    assert [i.index for i in driver.of(Item) if i.invocation == invocation] == [0, 1]


THREAD_VARIABLES = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
]


@pytest.mark.parametrize(("cores", "threads"), [(None, "1"), (0.5, "1"), (2.0, "2"), (3.7, "3")])
def test_libraries_are_told_how_many_threads_to_start(
    driver: Driver, cores: float | None, threads: str
) -> None:
    def told(names: list[str]) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in names}

    found = driver.call(told, THREAD_VARIABLES, limits=Resources(cores=cores)).value
    assert found == dict.fromkeys(THREAD_VARIABLES, threads)


def test_a_reused_process_keeps_the_number_of_threads_that_its_libraries_were_loaded_with(
    driver: Driver,
) -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("threadpoolctl")

    def threads() -> tuple[set[int], int]:
        import numpy  # noqa: F401
        import threadpoolctl

        return {each["num_threads"] for each in threadpoolctl.threadpool_info()}, os.getpid()

    driver.in_place(["numpy"], environment=8)
    found = [
        driver.call(
            threads, environment=8, group=group, reuse=True, limits=Resources(cores=cores)
        ).value
        for group, cores in enumerate((1.0, 2.0, 1.0, 2.0), 1)
    ]
    assert [counts for counts, _ in found] == [{1}, {2}, {1}, {2}]
    pids = [pid for _, pid in found]
    assert pids[:2] == pids[2:]
    assert pids[0] != pids[1]
