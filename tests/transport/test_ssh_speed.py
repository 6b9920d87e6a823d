"""What asyncssh is spared: the bytes stay the same, whatever the pieces."""

from __future__ import annotations

from typing import Any

import pytest
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE
from hypothesis import given
from hypothesis import strategies as st

from afarm.transport import ssh_speed
from afarm.transport.ssh_speed import PACKET

lengths = st.lists(
    st.one_of(st.integers(0, 40), st.integers(PACKET - 20, PACKET + 20), st.just(3 * PACKET)),
    max_size=6,
)


@given(lengths, st.booleans())
def test_packets_are_full_but_for_the_last_and_hold_the_same_bytes(
    lengths: list[int], views: bool
) -> None:
    parts: list[Any] = [bytes([n]) * length for n, length in enumerate(lengths)]
    whole = b"".join(parts)
    given_parts = [memoryview(part) for part in parts] if views else parts
    found = [bytes(packet) for packet in ssh_speed.packets(given_parts)]
    assert b"".join(found) == whole
    assert all(len(packet) == PACKET for packet in found[:-1])
    assert all(0 < len(packet) <= PACKET for packet in found)


class Connection:
    """As much of asyncssh's connection as `spare` touches."""

    def __init__(self, cipher: str) -> None:
        self._cipher = cipher
        self.sent: list[int] = []
        self.taken: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"send_cipher": self._cipher}.get(name, default)

    def send_packet(self, kind: int, *parts: bytes, handler: Any = None) -> None:
        if kind != MSG_IGNORE:
            self.send_packet(MSG_IGNORE, b"")
        self.sent.append(kind)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self.taken.append(data)
        if data.endswith(b"end"):
            self.closed = True

    def is_closed(self) -> bool:
        return self.closed


@pytest.mark.parametrize(
    ("cipher", "kinds"),
    [
        ("aes128-gcm@openssh.com", [MSG_CHANNEL_DATA]),
        ("chacha20-poly1305@openssh.com", [MSG_CHANNEL_DATA]),
        ("aes256-ctr", [MSG_CHANNEL_DATA]),
        ("aes128-cbc", [MSG_IGNORE, MSG_CHANNEL_DATA]),
    ],
)
def test_empty_packets_are_left_out_where_the_cipher_needs_none(
    cipher: str, kinds: list[int]
) -> None:
    connection: Any = Connection(cipher)
    ssh_speed.spare(connection)
    connection.send_packet(MSG_CHANNEL_DATA, b"data", handler=None)
    assert connection.sent == kinds


def test_large_reads_are_taken_in_pieces_until_the_connection_closes() -> None:
    connection: Any = Connection("aes128-gcm@openssh.com")
    ssh_speed.spare(connection)
    data = bytes(range(256)) * 1024
    connection.data_received(data)
    assert b"".join(connection.taken) == data
    assert max(map(len, connection.taken)) < PACKET + 100
    connection.taken.clear()
    first = len(data[: PACKET + 64]) - 3
    connection.data_received(bytes(first) + b"end" + data)
    assert len(connection.taken) == 1
