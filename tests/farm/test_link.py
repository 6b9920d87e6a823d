"""The farm's end of a connection, fed by hand: noise, payloads in pieces, faults, liveness."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afarm._wire import messages as wire
from afarm._wire.frames import BULK, pack_header
from afarm.errors import NodeError
from afarm.link import NOISE_LIMIT, PATIENCE, Greeting, Link
from afarm.resources import Resources, Usage

HELLO = wire.encode(wire.Hello(wire.PROTOCOL_VERSION, Resources(cores=2), json.dumps({})))


class Events:
    """Notes what a link tells."""

    def __init__(self) -> None:
        self.ended: list[tuple[wire.Ended, bytes]] = []
        self.items: list[bytes] = []
        self.lost: list[str] = []
        self.results_lost: list[tuple[wire.Ended, str]] = []

    def attempt_ended(self, link: Link, ended: wire.Ended, parts: list[Any]) -> None:
        self.ended.append((ended, b"".join(bytes(part) for part in parts)))

    def result_lost(self, link: Link, ended: wire.Ended, reason: str) -> None:
        self.results_lost.append((ended, reason))

    def item_arrived(self, link: Link, item: wire.Item, parts: list[Any]) -> None:
        self.items.append(b"".join(bytes(part) for part in parts))

    def link_lost(self, link: Link, reason: str) -> None:
        self.lost.append(reason)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class FakeNode:
    """A node that is never connected to."""

    name = "fake"
    stated = Resources()
    scratch = ""
    in_place = True


class FakeConnection:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, parts: list[Any]) -> None:
        self.written += b"".join(bytes(part) for part in parts)

    def abort(self) -> None:
        self.aborted = True


def link_with(events: Events) -> Link:
    link = Link(FakeNode(), events, Greeting("f", 1, 300), 0)  # type: ignore[arg-type]
    link._connection = FakeConnection()  # type: ignore[assignment]
    return link


def ended(size: int, body: bytes = b"", invocation: int = 7) -> bytes:
    return wire.encode(
        wire.Ended(invocation, 1, wire.Outcome.RETURNED, 0, 0, size, Usage(), b"", "", b"", body)
    )


def bulk(data: bytes, subject: int = 7) -> bytes:
    return pack_header(BULK, subject, len(data)) + data


@pytest.mark.parametrize("chunk", [1, 7, 1000])
async def test_what_comes_before_the_agent_is_skipped_in_any_chunking(chunk: int) -> None:
    events = Events()
    link = link_with(events)
    stream = b"Welcome!\r\n\x00\xaf" + wire.MAGIC + HELLO + ended(3, b"abc")
    for at in range(0, len(stream), chunk):
        link.data_received(stream[at : at + chunk])
    assert link.hello is not None
    assert [data for _, data in events.ended] == [b"abc"]


async def test_text_without_end_is_not_taken_for_an_agent() -> None:
    link = link_with(Events())
    link.data_received(b"spam " * (NOISE_LIMIT // 4))
    with pytest.raises(NodeError, match=r"no agent answered.*spam"):
        await link._ready


async def test_a_payload_is_told_when_its_last_byte_is_here() -> None:
    events = Events()
    link = link_with(events)
    link.data_received(wire.MAGIC + HELLO + ended(10) + bulk(b"01234"))
    assert events.ended == []
    link.data_received(bulk(b"56789"))
    assert [data for _, data in events.ended] == [b"0123456789"]
    assert not link._incoming


async def test_an_end_does_not_overtake_the_items_before_it() -> None:
    events = Events()
    link = link_with(events)
    item = wire.encode(wire.Item(7, 1, 0, 4, b"", b""))
    link.data_received(wire.MAGIC + HELLO + item + ended(1, b"r") + bulk(b"ab"))
    assert (events.items, events.ended) == ([], [])
    link.data_received(bulk(b"cd"))
    assert events.items == [b"abcd"]
    assert [data for _, data in events.ended] == [b"r"]


async def test_a_result_that_is_lost_on_its_way_is_told_with_its_reason() -> None:
    events = Events()
    link = link_with(events)
    link.data_received(wire.MAGIC + HELLO + ended(10) + bulk(b"01234"))
    link.data_received(wire.encode(wire.Lost(7, "its process died")))
    [(message, reason)] = events.results_lost
    assert (message.outcome, message.exit, reason) == (wire.Outcome.CRASHED, -9, "its process died")
    assert not events.ended
    link.data_received(bulk(b"late"))  # of nobody any more
    assert not events.lost


async def test_bytes_that_are_no_frames_lose_the_node_and_are_shown() -> None:
    events = Events()
    link = link_with(events)
    link.data_received(wire.MAGIC + HELLO)
    link.data_received(b"Traceback (most recent call last):\n")
    assert len(events.lost) == 1
    assert "Traceback" in events.lost[0]
    assert link._connection.aborted  # type: ignore[union-attr]


async def test_only_time_in_which_this_loop_ran_counts_against_a_node() -> None:
    events = Events()
    link = link_with(events)
    link.data_received(wire.MAGIC + HELLO)
    for _ in range(int(PATIENCE)):
        link.check(1.0)
    assert not events.lost
    link.data_received(wire.encode(wire.Heartbeat(1, 0.0, 0, -1.0)))
    for _ in range(int(PATIENCE)):
        link.check(1.0)
    assert not events.lost
    link.check(1.0)
    assert "nothing heard" in events.lost[0]
