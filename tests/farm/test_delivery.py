"""In which order bundles leave, and when they are compressed."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afarm._wire import flow
from afarm._wire.chunks import CHUNK, ChunkReader
from afarm.delivery import Delivery
from afarm.environments import Bundle, Deflating

# Bytes/s at which any compressor is waited for.
SLOW = 100.0


def bundle(folder: Path, name: str, *, data: int, head: int, size: int) -> Bundle:
    """Return a bundle of so many chunks, each of which holds its name and number."""
    path = folder / f"{name}.tar"
    path.write_bytes(b"".join(f"{name}{at:03}".encode() * (CHUNK // 4) for at in range(size)))
    return Bundle(
        name * 64, "source", name, size * CHUNK, data * CHUNK, head * CHUNK, path, native=False
    )


def padded_bundle(folder: Path, *content: bytes) -> Bundle:
    """Return a bundle of some content."""
    path = folder / "padded.tar"
    path.write_bytes(b"".join(content))
    return Bundle("d" * 64, "source", "d", path.stat().st_size, 0, 0, path, native=False)


class Sending(Delivery):
    """A delivery over a link whose rate is known when a test says so."""

    def __init__(self) -> None:
        super().__init__(lambda: self.known, self._note_resumed)
        self.known = 0.0
        self._resumed = asyncio.Event()

    async def wait_resumed(self) -> None:
        await self._resumed.wait()
        self._resumed.clear()

    def _note_resumed(self) -> None:
        self._resumed.set()


class Compressor:
    """The compressing thread, which makes no chunk that it was not let make."""

    def __init__(self) -> None:
        self.order: list[str] = []  # the bundle of each step
        self._allowed = threading.Semaphore(0)

    def let(self, steps: int) -> None:
        self._allowed.release(steps)

    def wait_allowed(self, bundle: Bundle) -> None:
        assert self._allowed.acquire(timeout=60)
        self.order.append(bundle.name)


@pytest.fixture
def compressor(monkeypatch: pytest.MonkeyPatch) -> Compressor:
    made = Compressor()
    advance = Deflating.advance

    def advance_if_allowed(self: Deflating) -> None:
        made.wait_allowed(self._bundle)
        advance(self)

    monkeypatch.setattr(Deflating, "advance", advance_if_allowed)
    return made


class Receiver:
    """The other end."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.content: dict[int, bytes] = {}
        self.bytes = 0
        self._readers: dict[int, ChunkReader] = {}

    def take(self, sender: Delivery, most: int) -> None:
        subject = sender.subject
        data = b"".join(sender.take(most))
        self.bytes += len(data)
        sender.renew(subject, len(data))
        for content in self._readers.setdefault(subject, ChunkReader()).feed(data):
            self.content[subject] = self.content.get(subject, b"") + content
            name = bytes(content[:4]).decode()
            if name not in self.order and not name[0].isdigit():
                self.order.append(name)

    def take_all(self, sender: Delivery) -> None:
        while sender.left:
            self.take(sender, CHUNK * 2)

    async def wait_for_all(self, sender: Sending) -> None:
        self.take_all(sender)
        while sender._parcels:
            await sender.wait_resumed()
            self.take_all(sender)


def test_what_is_no_module_leaves_first_then_heads_then_the_rest(tmp_path: Path) -> None:
    sender, receiver = Sending(), Receiver()
    one = bundle(tmp_path, "a", data=1, head=3, size=4)
    two = bundle(tmp_path, "b", data=2, head=0, size=3)
    three = bundle(tmp_path, "c", data=1, head=2, size=2)
    for number, each in enumerate((one, two, three), 1):
        sender.add(number, each)

    receiver.take_all(sender)

    assert " ".join(receiver.order) == "a000 b000 b001 c000 a001 a002 c001 a003 b002"
    assert receiver.content == {
        number: each.path.read_bytes() for number, each in enumerate((one, two, three), 1)
    }


@pytest.mark.parametrize("end", [b"", bytes(9), b"\1" + bytes(8), bytes(CHUNK - 1) + b"\1"])
def test_zeros_travel_compressed_whatever_the_link(tmp_path: Path, end: bytes) -> None:
    sender, receiver = Sending(), Receiver()
    first = b"\0" + b"a" * (CHUNK - 2) + b"\0"
    sender.add(1, padded_bundle(tmp_path, first, bytes(3 * CHUNK), end))

    receiver.take_all(sender)

    assert receiver.content == {1: first + bytes(3 * CHUNK) + end}
    assert receiver.bytes < CHUNK + len(end) + 3 * 1000


def test_what_another_function_needs_first_overtakes_the_rest(tmp_path: Path) -> None:
    sender, receiver = Sending(), Receiver()
    sender.add(1, bundle(tmp_path, "a", data=1, head=1, size=4))
    for _ in range(2):
        receiver.take(sender, CHUNK * 2)
    sender.add(2, bundle(tmp_path, "b", data=1, head=2, size=2))

    receiver.take_all(sender)

    assert " ".join(receiver.order) == "a000 a001 a002 b000 b001 a003"


def test_credit_is_that_of_the_bundle_whose_turn_it_is(tmp_path: Path) -> None:
    sender = Sending()
    sender.add(1, bundle(tmp_path, "a", data=1, head=1, size=2))
    sender.add(2, bundle(tmp_path, "b", data=1, head=1, size=1))

    sender.take(100)
    assert (sender.subject, sender.credit) == (1, flow.CREDIT - 100)
    sender.take(CHUNK * 2)
    assert (sender.subject, sender.credit) == (2, flow.CREDIT)
    assert sender.renew(1, 100)
    assert not sender.renew(3, 100)
    assert 1 in sender
    sender.answered(1)
    assert 1 not in sender


@pytest.mark.parametrize("rate", [0.0, 2e6, 2e7, 1e9])
async def test_on_a_slow_link_it_is_compressed_as_soon_as_the_link_is_known(
    tmp_path: Path, rate: float
) -> None:
    sender, receiver = Sending(), Receiver()
    one = bundle(tmp_path, "a", data=1, head=2, size=8)
    sender.add(1, one)
    receiver.take(sender, CHUNK * 2)
    sender.known = rate
    receiver.take(sender, CHUNK * 2)
    if rate == 2e7:  # on this one nobody waits for the compressor
        assert sender.left > CHUNK
        assert sender._compressing is not None
        await sender._compressing

    await receiver.wait_for_all(sender)

    assert receiver.content == {1: one.path.read_bytes()}
    assert (receiver.bytes < one.size // 2) == (rate in (2e6, 2e7))


async def test_each_chunk_leaves_as_soon_as_it_is_compressed(
    tmp_path: Path, compressor: Compressor
) -> None:
    sender, receiver = Sending(), Receiver()
    one = bundle(tmp_path, "a", data=1, head=2, size=4)
    sender.known = SLOW
    sender.add(1, one)

    for number in range(4):
        assert not sender.left
        compressor.let(1)
        await sender.wait_resumed()
        assert sender.left < CHUNK // 10
        receiver.take(sender, CHUNK)
        assert receiver.order == [f"a{at:03}" for at in range(number + 1)]
    assert receiver.content == {1: one.path.read_bytes()}


async def test_nobody_waits_for_a_compressor_longer_than_sending_it_would_take(
    tmp_path: Path, compressor: Compressor
) -> None:
    sender, receiver = Sending(), Receiver()
    one = bundle(tmp_path, "a", data=1, head=2, size=2)
    sender.known = 9e6
    sender.add(1, one)
    assert not sender.left

    await receiver.wait_for_all(sender)

    assert receiver.content == {1: one.path.read_bytes()}
    assert receiver.bytes > one.size
    sender.close()
    compressor.let(9)


async def test_what_is_needed_first_is_compressed_first(
    tmp_path: Path, compressor: Compressor
) -> None:
    sender, receiver = Sending(), Receiver()
    sender.known = 9e6
    sender.add(1, bundle(tmp_path, "a", data=1, head=2, size=3))
    sender.add(2, bundle(tmp_path, "b", data=2, head=0, size=2))
    compressor.let(9)
    await receiver.wait_for_all(sender)
    if sender._compressing is not None:
        await sender._compressing

    assert " ".join(compressor.order) == "a b b a a"


async def test_connections_share_what_is_compressed_and_the_cache_keeps_it(
    tmp_path: Path, compressor: Compressor
) -> None:
    one = bundle(tmp_path, "a", data=1, head=2, size=5)
    for expected in (5, 6):  # the second pair of them finds it in the cache, in one step
        senders, receivers = [Sending(), Sending()], [Receiver(), Receiver()]
        for sender in senders:
            sender.known = SLOW
            sender.add(1, one)
        compressor.let(9)
        for sender, receiver in zip(senders, receivers, strict=True):
            await receiver.wait_for_all(sender)
            assert receiver.content == {1: one.path.read_bytes()}
            assert receiver.bytes < one.size // 10
        assert len(compressor.order) == expected


async def test_what_was_not_compressed_to_its_end_leaves_nothing_behind(
    tmp_path: Path, compressor: Compressor
) -> None:
    senders = [Sending(), Sending()]
    for sender in senders:
        sender.known = SLOW
        sender.add(1, bundle(tmp_path, "a", data=1, head=2, size=4))
    compressor.let(1)
    await senders[0].wait_resumed()

    senders[0].close()
    assert list(tmp_path.glob(".deflate-*"))
    await senders[1].wait_resumed()
    senders[1].close()

    assert not list(tmp_path.glob(".deflate-*"))
    assert not senders[1].left
    compressor.let(9)


async def test_what_cannot_be_compressed_travels_as_it_is(tmp_path: Path) -> None:
    sender, receiver = Sending(), Receiver()
    one = bundle(tmp_path, "a", data=1, head=2, size=4)
    content = one.path.read_bytes()
    sender.add(1, one)
    one.path.unlink()
    sender.known = SLOW

    await receiver.wait_for_all(sender)

    assert receiver.content == {1: content}
    assert receiver.bytes > one.size


_STEPS = st.one_of(
    st.integers(1, 3 * CHUNK),  # bytes taken
    st.sampled_from([0.0, SLOW, 9e6, 2e7, 1e9]),  # the link's rate
    st.sampled_from(["add", "wait"]),
)
_PARTS = st.lists(st.integers(0, 4), min_size=3, max_size=3).map(sorted)


@settings(max_examples=50, deadline=None)
@given(st.lists(_PARTS.filter(lambda parts: parts[-1] > 0), max_size=3), st.lists(_STEPS))
def test_whatever_is_compressed_when_what_arrives_are_the_bundles(
    sizes: list[list[int]], steps: list[int | float | str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundles = [
            bundle(Path(folder), "abc"[number], data=data, head=head, size=size)
            for number, (data, head, size) in enumerate(sizes)
        ]
        arrived = asyncio.run(_deliver(bundles, steps))
        assert arrived == {n: each.path.read_bytes() for n, each in enumerate(bundles)}


async def _deliver(bundles: list[Bundle], steps: list[int | float | str]) -> dict[int, bytes]:
    sender, receiver = Sending(), Receiver()
    to_add = list(enumerate(bundles))
    for step in steps:
        if step == "add":
            if to_add:
                sender.add(*to_add.pop(0))
        elif isinstance(step, float):
            sender.known = step
        elif isinstance(step, int) and sender.left:
            receiver.take(sender, step)
        elif sender._waiting is not None:
            await sender.wait_resumed()
        else:
            await asyncio.sleep(0)  # a turn of the loop
    for each in to_add:
        sender.add(*each)
    await receiver.wait_for_all(sender)
    sender.close()
    return receiver.content
