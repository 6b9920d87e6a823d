"""Arguments are taken as they are, large buffers without a copy, and each fault is named."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from afarm._wire.payloads import Gather, unpack_layout
from afarm.errors import SerializationError
from afarm.payload import Packed, dump_arguments, load
from afarm.payload.arguments import COPY_LIMIT, dump


def carried(packed: Packed) -> object:
    """Return what arrives at the other end: every part in a buffer of its own."""
    gather = Gather([list(packed.lengths)])
    for piece in packed.pieces:
        gather.feed(memoryview(piece).cast("B"))
    assert gather.complete
    return load(gather.groups[0])


@pytest.mark.parametrize(
    "args",
    [(), (1, 2.5, "x", b"y", None, True), ([1, {"a": (2, 3)}],), (b"z" * 3_000_000,)],
)
def test_arguments_arrive_as_they_were(args: tuple[object, ...]) -> None:
    assert carried(dump_arguments(args, {})) == (args, {})
    assert carried(dump_arguments(args, {"key": args})) == (args, {"key": args})


def test_changing_arguments_afterwards_has_no_effect() -> None:
    small, array = [1], np.zeros(1000)
    packed = dump_arguments((small, array), {})
    small.append(2)
    array[:] = 1
    (first, second), _ = carried(packed)  # type: ignore[misc]
    assert first == [1]
    assert not second.any()


def test_buffers_over_a_megabyte_are_not_copied() -> None:
    array = np.zeros(COPY_LIMIT)
    packed = dump_arguments((array,), {})
    array[:] = 7
    ((found,), _) = carried(packed)  # type: ignore[misc]
    assert found[0] == 7


def test_large_bytes_are_not_copied_into_the_pickle() -> None:
    data = bytes(5_000_000)
    packed = dump_arguments(([data],), {})
    assert any(piece is data for piece in packed.pieces)


@pytest.mark.parametrize("size", [10, 3_000, 10_000, 2_000_000])
def test_arrays_arrive_writable(size: int) -> None:
    array = np.arange(size)
    array.flags.writeable = size != 3_000
    ((found,), _) = carried(dump_arguments((array,), {}))  # type: ignore[misc]
    assert (found == array).all()
    if array.flags.writeable:
        found[0] = 5


def test_a_lambda_and_a_local_class_travel() -> None:
    class Local:
        value = 3

    (function, made), _ = carried(dump_arguments((lambda x: x + 1, Local()), {}))  # type: ignore[misc]
    assert function(1) == 2
    assert made.value == 3


def test_the_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match="argument 2, of type lock") as caught:
        dump_arguments((1, threading.Lock()), {})
    assert caught.value.part == "argument 2"
    with pytest.raises(SerializationError, match="argument 'guard'"):
        dump_arguments((), {"guard": threading.Lock()})


def test_a_layout_is_made_of_the_lengths() -> None:
    packed = dump_arguments((np.zeros(100_000), np.zeros(50_000)), {})
    assert len(packed.lengths) == 3
    assert packed.size == sum(memoryview(piece).nbytes for piece in packed.pieces)
    assert unpack_layout(b"", 5) == [[5]]


def test_what_is_put_must_not_hold_what_stands_for_a_value() -> None:
    assert carried(dump({"a": 1})) == {"a": 1}
    with pytest.raises(SerializationError, match="type lock"):
        dump(threading.Lock())


@pytest.mark.parametrize(
    "value",
    [
        list(range(400_000)),
        {"key": [str(n) for n in range(100_000)]},
        b"x" * 3_000_000,
        ["y" * 700_000, bytearray(b"z" * 2_500_001)],
    ],
    ids=["integers", "strings", "bytes", "mixed"],
)
def test_a_large_pickle_is_read_to_the_same_value(value: object) -> None:
    assert load(dump(value).parts()) == value
    assert load([pickle.dumps(value, protocol=0)]) == value


def test_a_large_pickle_that_is_cut_off_is_an_error() -> None:
    whole = pickle.dumps(list(range(400_000)))
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        load([whole[:-100_000]])


def test_other_threads_run_while_a_large_pickle_is_read() -> None:
    data = pickle.dumps(list(range(6_000_000)))
    reading = threading.Thread(target=load, args=([data],))
    reading.start()
    turns = 0
    while reading.is_alive():
        turns += 1
        reading.join(0.001)
    assert turns >= 4  # one or two where the interpreter is not let go
