"""What leaves over one connection, and when: control first, streams by turns, within bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from afarm import outgoing
from afarm._wire import flow
from afarm._wire import messages as wire
from afarm._wire.chunks import ChunkReader
from afarm._wire.frames import Fragment, FrameReader
from afarm.environments import Bundle
from afarm.outgoing import Outgoing


class Node:
    """The other end: keeps what arrives, acknowledges and gives credit when it is told to."""

    def __init__(self, queue: Outgoing) -> None:
        self.queue = queue
        self.reader = FrameReader(wire.TO_AGENT)
        self.got: dict[int, bytes] = {}
        self.order: list[int] = []  # the kind of each frame, or the subject of bulk
        self.received = 0
        self.now = 0.0

    def turn(self) -> int:
        """Take what may leave now; return how many bytes of bulk that was."""
        self.now += 0.01
        parts, _ = self.queue.take(self.now, bulk=True)
        before = self.received
        for found in self.reader.feed(b"".join(parts)):
            if isinstance(found, Fragment):
                self.got[found.subject] = self.got.get(found.subject, b"") + bytes(found.data)
                self.received += len(found.data)
                self.order.append(found.subject)
            else:
                self.order.append(-found.kind)
        return self.received - before

    def acknowledge(self) -> None:
        assert self.queue.acknowledged(self.received, self.now)


@given(
    st.dictionaries(st.integers(1, 9), st.lists(st.integers(0, 300_000), max_size=3), max_size=4)
)
def test_every_stream_arrives_whole_and_in_order(sizes: dict[int, list[int]]) -> None:
    queue = Outgoing()
    node = Node(queue)
    wanted = {}
    for subject, lengths in sizes.items():
        pieces = [bytes([subject * 16 + n]) * length for n, length in enumerate(lengths)]
        queue.bulk(subject, pieces)
        wanted[subject] = b"".join(pieces)
    while node.turn():
        node.acknowledge()
    assert node.got == {subject: data for subject, data in wanted.items() if data}
    assert queue.sent == sum(map(len, wanted.values()))


def test_control_overtakes_bulk_that_was_queued_before() -> None:
    queue = Outgoing()
    node = Node(queue)
    queue.bulk(1, [bytes(10 << 20)])
    node.turn()
    queue.message(wire.Kill(7, 1, wire.KillReason.CANCELLED))
    node.acknowledge()
    node.order.clear()
    node.turn()
    assert node.order[0] == -wire.Kill.kind


def test_streams_take_turns() -> None:
    queue = Outgoing()
    node = Node(queue)
    queue.bulk(1, [bytes(10 << 20)])
    queue.bulk(2, [bytes(100)])
    node.turn()
    node.acknowledge()
    assert node.got[2] == bytes(100)
    assert len(node.got[1]) < 1 << 20


def test_no_more_is_on_its_way_than_the_window_or_leaves_in_a_turn() -> None:
    queue = Outgoing()
    node = Node(queue)
    queue.bulk(1, [bytes(64 << 20)])
    assert node.turn() <= flow.LEAST_WINDOW
    assert node.turn() == 0
    for _ in range(5):
        node.acknowledge()
        assert 0 < node.turn() <= outgoing.TURN


def test_a_stream_without_credit_waits_until_it_is_renewed() -> None:
    queue = Outgoing()
    node = Node(queue)
    queue.bulk(1, [bytes(flow.CREDIT + 5000)])
    while node.turn():
        node.acknowledge()
    assert node.received == flow.CREDIT
    assert queue.renew(1, 5000)
    assert node.turn() == 5000
    assert not queue.renew(1, 1)  # all of it is gone


async def test_bulk_that_waited_for_the_compressor_leaves_when_that_is_done(tmp_path: Path) -> None:
    woken = asyncio.Event()
    queue = Outgoing(woken.set)
    node = Node(queue)
    content = b"".join(b"%07d\n" % number for number in range(600_000))
    path = tmp_path / "own.tar"
    path.write_bytes(content)
    queue.bundle(1, Bundle("a" * 64, "source", "own", len(content), 0, 0, path, native=False))
    arrived = bytearray()
    chunks = ChunkReader()
    while len(arrived) < len(content):
        if not node.turn():
            await asyncio.wait_for(woken.wait(), 60)
            woken.clear()
            continue
        for piece in chunks.feed(node.got.pop(1)):
            arrived += piece
        node.now += 0.1  # a window in that time: a slow link
        node.acknowledge()
    assert arrived == content
    assert node.received < len(content)
    queue.close()


def test_what_is_dropped_goes_no_further() -> None:
    queue = Outgoing()
    node = Node(queue)
    queue.bulk(1, [bytes(10 << 20)])
    queue.bulk(2, [bytes(1000)])
    sent = node.turn()
    queue.drop(1)
    while node.turn():
        node.acknowledge()
    assert node.got[2] == bytes(1000)
    assert len(node.got[1]) <= sent


def test_more_than_was_sent_cannot_have_arrived() -> None:
    queue = Outgoing()
    queue.bulk(1, [bytes(1000)])
    queue.take(0.0, bulk=True)
    assert not queue.acknowledged(1001, 1.0)
