"""Frames out of any chunking of the stream, and refusals of what is not frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._wire.frames import (
    BULK,
    BULK_LIMIT,
    CHECK,
    CONTROL_LIMIT,
    HEADER,
    Fragment,
    Frame,
    FrameReader,
    pack_header,
)
from afarm.errors import LocalProtocolError, RemoteProtocolError

KINDS = frozenset({16, 17, 64})

frames = st.lists(
    st.tuples(
        st.sampled_from([BULK, 16, 17, 64]),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=300),
    ),
    max_size=12,
)


def stream_of(sent: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(pack_header(kind, subject, len(b)) + b for kind, subject, b in sent)


def gather(found: list[Frame | Fragment]) -> list[tuple[int, int, bytes]]:
    """Return frames as they were sent, consecutive fragments of a subject joined."""
    joined: list[tuple[int, int, bytes]] = []
    for one in found:
        if isinstance(one, Frame):
            joined.append((one.kind, one.subject, one.body))
        elif joined and joined[-1][:2] == (BULK, one.subject):
            joined[-1] = (BULK, one.subject, joined[-1][2] + bytes(one.data))
        else:
            joined.append((BULK, one.subject, bytes(one.data)))
    return joined


@given(frames, st.lists(st.integers(1, 50), min_size=1))
def test_every_chunking_gives_the_same_frames(
    sent: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    stream = stream_of(sent)
    reader = FrameReader(KINDS)
    found: list[Frame | Fragment] = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        for one in reader.feed(stream[at : at + size]):
            # A fragment is valid until the next feed only: take its bytes now.
            found.append(
                Fragment(one.subject, memoryview(bytes(one.data)))
                if isinstance(one, Fragment)
                else one
            )
        at += size
        turn += 1
    expected = gather(FrameReader(KINDS).feed(stream))
    assert gather(found) == expected
    assert reader.pending == 0


@given(frames)
def test_single_bytes_are_enough(sent: list[tuple[int, int, bytes]]) -> None:
    reader = FrameReader(KINDS)
    found = []
    for byte in stream_of(sent):
        for one in reader.feed(bytes([byte])):
            if isinstance(one, Frame):
                found.append((one.kind, one.subject, one.body))
    assert found == [one for one in sent if one[0] != BULK]


def test_a_length_is_checked_before_its_bytes_are_awaited() -> None:
    header = HEADER.pack(CONTROL_LIMIT + 1, 16, CHECK, 5)
    with pytest.raises(RemoteProtocolError, match=f"{CONTROL_LIMIT + 1} bytes"):
        FrameReader(KINDS).feed(header)
    header = HEADER.pack(BULK_LIMIT + 1, BULK, CHECK, 5)
    with pytest.raises(RemoteProtocolError, match="bulk frame"):
        FrameReader(KINDS).feed(header)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="unknown kind 99"):
        FrameReader(KINDS).feed(HEADER.pack(0, 99, CHECK, 0))


def test_text_in_the_stream_is_shown_and_not_taken_for_a_length() -> None:
    with pytest.raises(RemoteProtocolError, match="Segmentation fau"):
        FrameReader(KINDS).feed(b"Segmentation fault (core dumped)\n")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    reader = FrameReader(KINDS)
    try:
        reader.feed(data)
    except RemoteProtocolError:
        return
    assert reader.pending <= CONTROL_LIMIT + HEADER.size


def test_a_frame_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError):
        pack_header(16, 1, CONTROL_LIMIT + 1)
