"""The content of bundles, in chunks."""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._wire.chunks import CHUNK, ChunkReader, header
from afarm.errors import RemoteProtocolError


def chunk(content: bytes, *, packed: bool) -> bytes:
    sent = zlib.compress(content, 1) if packed else content
    return header(len(content), len(sent)) + sent


@given(
    st.lists(st.tuples(st.integers(1, 200), st.booleans()), max_size=6),
    st.integers(1, 50),
)
def test_content_comes_out_of_any_pieces(sizes: list[tuple[int, bool]], step: int) -> None:
    content = [(bytes(size * 20), packed) for size, packed in sizes]
    sent = b"".join(chunk(each, packed=packed) for each, packed in content)
    reader = ChunkReader()

    found = [
        bytes(part)
        for at in range(0, len(sent), step)
        for part in reader.feed(sent[at : at + step])
    ]

    assert b"".join(found) == b"".join(each for each, _ in content)


def test_a_chunk_of_the_largest_size_comes_out_in_one_piece() -> None:
    content = os.urandom(CHUNK)

    assert b"".join(ChunkReader().feed(chunk(content, packed=False))) == content


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (header(0, 0), "a chunk of 0 bytes"),
        (header(CHUNK + 1, 10), f"a chunk of {CHUNK + 1} bytes"),
        (header(10, 11), "a chunk of 10 bytes in 11"),
        (header(99, 4) + b"none", "cannot be inflated"),
        (header(99, len(zlib.compress(b"a"))) + zlib.compress(b"a"), "lacks 98 bytes"),
        (
            header(500, len(zlib.compress(bytes(9999)))) + zlib.compress(bytes(9999)),
            "more than it says",
        ),
    ],
)
def test_what_is_no_chunk_is_refused(sent: bytes, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        b"".join(ChunkReader().feed(sent))
