"""What asyncssh is spared when bulk passes through it.

Both changes are made to one connection from outside, by its public methods, and change
nothing of what it says and understands. Measured with 200 MB each way over loopback:
benchmarks/transfer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import asyncssh
from asyncssh.constants import MSG_IGNORE

# The largest piece of data that OpenSSH takes, and sends, in one packet.
PACKET = 32 << 10

# One such packet as it travels: lengths, padding and signature come on top.
_TRAVELLING = PACKET + 64


def spare(connection: asyncssh.SSHClientConnection) -> None:
    """Let a connection send no empty packets, and take large reads in pieces."""
    _send_no_empty_packets(connection)
    _take_pieces(connection)


def _send_no_empty_packets(connection: Any) -> None:
    """Leave out the IGNORE packet that asyncssh sends before each other packet.

    It protects the chained modes of old ciphers (CVE-2008-5161). The modes that number
    their packets do not need it, and each costs as much as a packet of 12 KiB.
    """
    cipher = str(connection.get_extra_info("send_cipher", ""))
    if "gcm" not in cipher and "chacha20" not in cipher and "ctr" not in cipher:
        return
    send = connection.send_packet

    def send_packet(kind: int, *parts: bytes, **rest: Any) -> None:
        if kind != MSG_IGNORE:
            send(kind, *parts, **rest)

    connection.send_packet = send_packet


def _take_pieces(connection: Any) -> None:
    """Give a connection what was read in pieces of about one packet.

    asyncio reads up to 256 KiB at once, and asyncssh copies all that is left of it twice
    for each packet that it takes out.
    """
    take = connection.data_received

    def data_received(data: bytes, datatype: int | None = None) -> None:
        if len(data) <= _TRAVELLING:
            take(data, datatype)
            return
        for at in range(0, len(data), _TRAVELLING):
            if connection.is_closed():
                return
            take(data[at : at + _TRAVELLING], datatype)

    connection.data_received = data_received


def packets(parts: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Return the same bytes in pieces that fill a packet each, but for the last."""
    short: list[bytes | memoryview] = []
    room = PACKET
    for part in parts:
        at = 0
        while at < len(part):
            piece = part[at : at + room]
            at += len(piece)
            room -= len(piece)
            short.append(piece)
            if not room:
                yield piece if len(short) == 1 else b"".join(short)
                short = []
                room = PACKET
    if short:
        yield short[0] if len(short) == 1 else b"".join(short)
