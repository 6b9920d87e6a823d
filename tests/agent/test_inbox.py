"""A worker's end of its socket: payloads arrive whole, however the stream is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._agent.inbox import Inbox
from afarm._agent.internal import Found
from afarm._wire.frames import BULK, pack_header
from afarm._wire.messages import Kill, KillReason, More, decode, encode
from afarm._wire.payloads import Gather


def frames(data: bytes, sizes: list[int]) -> bytes:
    """Return bulk frames of these sizes in turn, as long as there is data."""
    found, at, turn = [], 0, 0
    while at < len(data):
        piece = data[at : at + sizes[turn % len(sizes)]]
        found.append(pack_header(BULK, 7, len(piece)) + piece)
        at += len(piece)
        turn += 1
    return b"".join(found)


def send_in_pieces(sock: socket.socket, stream: bytes, sizes: list[int]) -> None:
    at, turn = 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        sock.sendall(stream[at : at + size])
        at += size
        turn += 1


chunks = st.lists(st.integers(1, 90), min_size=1, max_size=5)


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=4).filter(sum),
    chunks,
    chunks,
)
def test_a_payload_is_gathered_between_messages_whatever_the_chunks(
    lengths: list[int], frame_sizes: list[int], piece_sizes: list[int]
) -> None:
    data = bytes(n % 251 for n in range(sum(lengths)))
    before, after = Kill(1, 1, KillReason.EVICTED), Kill(2, 1, KillReason.CANCELLED)
    stream = encode(before) + frames(data, frame_sizes) + encode(after)
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=send_in_pieces, args=(theirs, stream, piece_sizes))
    with ours, theirs:
        sender.start()
        inbox = Inbox(ours)
        gather = Gather([lengths])
        first = inbox.receive()
        assert inbox.gather(gather)
        last = inbox.receive()
        sender.join()
    assert b"".join(map(bytes, gather.groups[0])) == data
    assert first is not None
    assert last is not None
    assert [decode(first), decode(last)] == [before, after]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("cut", [0, 7, 16, 40, 115, 116, 130])
def test_the_end_of_the_stream_within_a_payload_is_noticed(
    pair: tuple[socket.socket, socket.socket], cut: int
) -> None:
    ours, theirs = pair
    theirs.sendall(frames(bytes(200), [100])[:cut])
    theirs.close()
    assert not Inbox(ours).gather(Gather([[200]]))


def test_a_message_within_a_payload_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(frames(bytes(100), [100]) + encode(Kill(1, 1, KillReason.EVICTED)))
    with pytest.raises(ValueError, match="something else"):
        Inbox(ours).gather(Gather([[200]]))


def test_what_comes_before_an_answer_is_not_lost(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    inbox = Inbox(ours)
    call, more, found = Kill(2, 1, KillReason.EVICTED), More(1, 1, 4), Found(3, "late", "")
    theirs.sendall(encode(call) + encode(more) + encode(found) + encode(call))

    received = [inbox.receive_kind(kind) for kind in (Found.kind, More.kind)]
    received += [inbox.receive(), inbox.receive()]

    assert [decode(frame) for frame in received if frame] == [found, more, call, call]


def test_threads_take_turns_and_one_alone_cannot_interrupt_itself(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    inbox = Inbox(pair[0])
    entered: list[bool] = []

    def enter() -> None:
        with inbox.turn() as free:
            entered.append(free)

    with inbox.turn() as free:
        assert free
        enter()
        assert entered == [False]
        other = threading.Thread(target=enter)
        other.start()
    other.join()
    assert entered == [False, True]
