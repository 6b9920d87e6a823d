"""In which order bundles leave, and when they are compressed."""

from __future__ import annotations

from pathlib import Path

import pytest

from afarm._wire import flow
from afarm._wire.chunks import CHUNK, ChunkReader
from afarm.delivery import Delivery
from afarm.environments import Bundle


def bundle(folder: Path, name: str, *, data: int, head: int, size: int) -> Bundle:
    """Return a bundle of so many chunks, each of which holds its name and number."""
    path = folder / f"{name}.tar"
    path.write_bytes(b"".join(f"{name}{at:03}".encode() * (CHUNK // 4) for at in range(size)))
    return Bundle(
        name * 64, "source", name, size * CHUNK, data * CHUNK, head * CHUNK, path, native=False
    )


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


def test_what_is_no_module_leaves_first_then_heads_then_the_rest(tmp_path: Path) -> None:
    sender, receiver = Delivery(lambda: 0.0), Receiver()
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


def test_what_another_function_needs_first_overtakes_the_rest(tmp_path: Path) -> None:
    sender, receiver = Delivery(lambda: 0.0), Receiver()
    sender.add(1, bundle(tmp_path, "a", data=1, head=1, size=4))
    for _ in range(2):
        receiver.take(sender, CHUNK * 2)
    sender.add(2, bundle(tmp_path, "b", data=1, head=2, size=2))

    receiver.take_all(sender)

    assert " ".join(receiver.order) == "a000 a001 a002 b000 b001 a003"


def test_credit_is_that_of_the_bundle_whose_turn_it_is(tmp_path: Path) -> None:
    sender = Delivery(lambda: 0.0)
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


@pytest.mark.parametrize("rate", [0.0, 2e6, 1e9])
async def test_on_a_slow_link_it_is_compressed_as_soon_as_the_link_is_known(
    tmp_path: Path, rate: float
) -> None:
    known = 0.0
    sender, receiver = Delivery(lambda: known), Receiver()
    one = bundle(tmp_path, "a", data=1, head=2, size=8)
    sender.add(1, one)
    receiver.take(sender, CHUNK * 2)
    known = rate
    receiver.take(sender, CHUNK * 2)
    if sender._compressing is not None:
        await sender._compressing

    receiver.take_all(sender)

    assert receiver.content == {1: one.path.read_bytes()}
    assert (receiver.bytes < one.size // 2) == (rate == 2e6)
