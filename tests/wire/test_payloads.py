"""Layouts, gathering and joined blobs."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._wire import payloads
from afarm.errors import RemoteProtocolError

groups_of_parts = st.lists(
    st.lists(st.binary(max_size=60), min_size=1, max_size=4), min_size=1, max_size=4
)


@given(groups_of_parts, st.integers(1, 40))
def test_what_is_laid_out_is_gathered_again(groups: list[list[bytes]], chunk: int) -> None:
    lengths = [[len(part) for part in group] for group in groups]
    data = b"".join(part for group in groups for part in group)
    layout = payloads.unpack_layout(payloads.pack_layout(lengths), len(data))
    assert layout == lengths
    gather = payloads.Gather(layout)
    for at in range(0, len(data), chunk):
        gather.feed(data[at : at + chunk])
    assert gather.complete
    assert [[bytes(part) for part in group] for group in gather.groups] == groups
    assert [[bytes(p) for p in g] for g in payloads.slices(data, layout)] == groups


def offset_in(blob: bytes, part: memoryview) -> int:
    """Return where a slice of ``blob`` begins, by its address."""
    whole = np.frombuffer(blob, np.uint8)
    inner = np.frombuffer(part, np.uint8)
    return int(inner.ctypes.data - whole.ctypes.data)


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=6))
def test_joined_parts_are_split_again_and_aligned(parts: list[bytes]) -> None:
    blob = b"".join(payloads.join(parts))
    found = payloads.split(blob)
    assert [bytes(part) for part in found] == parts
    for part in found:
        assert offset_in(blob, part) % payloads.ALIGNMENT == 0


@given(st.binary(max_size=80), st.integers(0, 1000))
def test_no_layout_makes_it_raise_anything_else(layout: bytes, size: int) -> None:
    try:
        found = payloads.unpack_layout(layout, size)
    except RemoteProtocolError:
        return
    assert sum(map(sum, found)) == size


def test_a_layout_of_another_size_is_refused() -> None:
    layout = payloads.pack_layout([[3, 4], [5]])
    with pytest.raises(RemoteProtocolError, match="12 bytes for a payload of 13"):
        payloads.unpack_layout(layout, 13)


def test_more_bytes_than_announced_are_refused() -> None:
    gather = payloads.Gather([[2]])
    with pytest.raises(RemoteProtocolError, match="more than"):
        gather.feed(b"abc")


def test_a_blob_that_promises_more_than_it_has_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="ends too early"):
        payloads.split(struct.pack("<2Q", 1, 100))
    with pytest.raises(RemoteProtocolError, match="announces"):
        payloads.split(struct.pack("<Q", 1 << 60))


def test_large_parts_are_gathered_writable_and_apart_from_forked_processes() -> None:
    size = payloads.MAPPED
    gather = payloads.Gather([[3, size]])
    gather.feed(b"abc" + bytes(size - 1) + b"z")
    assert gather.complete
    _, part = gather.groups[0]
    assert (len(part), part[0], part[-1]) == (size, 0, ord("z"))
    child = os.fork()
    if child == 0:
        part[0] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert part[0] == 0
