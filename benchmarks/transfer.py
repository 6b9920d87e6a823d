"""How fast do arguments and results travel: 1 MiB at a time, and 200 MB each way?

Beside the peers stand raw asyncssh, the library below afarm's SSH, and a plain ``ssh`` pipe
without Python in its path, both with the same cipher on the same loopback server.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import calls
from .figures import Figure
from .peers import NAMES, make_peer
from .peers.base import Peer
from .peers.server import CIPHER, Server
from .question import CannotMeasure, aim, median_of

RAW = "SSH: raw asyncssh"
PIPE = "SSH: ssh pipe"
ARRAY = 200_000_000
SMALL = 1 << 20
SMALL_NUMBER = 100
UP = "200 MB up"
DOWN = "200 MB down"
MANY = "1 MiB arguments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how large the array is."""
    parser.add_argument("--array", type=int, default=ARRAY, help="bytes of the array")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return the systems that keep workers, and the two floors."""
    peers = [name for name in NAMES if "floor" not in name and "a child a call" not in name]
    return [*peers, RAW, PIPE]


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Measure one of them once."""
    if subject == PIPE:
        return _with_server(_measure_pipe, options.array)
    if subject == RAW:
        return _with_server(lambda server, size: asyncio.run(_measure_raw(server, size)), ARRAY)
    peer = make_peer(subject)
    peer.open()
    try:
        return _measure_peer(subject, peer, options.array)
    finally:
        peer.close()


def _measure_peer(subject: str, peer: Peer, size: int) -> list[Figure]:
    try:
        import numpy as np
    except ImportError as exc:
        raise CannotMeasure("numpy is not installed") from exc
    # The first call of each kind also brings the function and numpy to the worker.
    array = np.ones(size // 8)
    peer.call(calls.length, array)
    peer.call(calls.make_array, size)
    began = time.perf_counter()
    if peer.call(calls.length, array) != array.nbytes:
        raise RuntimeError("the array did not arrive whole")
    sent = time.perf_counter()
    if peer.call(calls.make_array, size).nbytes != array.nbytes:
        raise RuntimeError("the array did not come back whole")
    received = time.perf_counter()
    small = [bytes(SMALL)] * SMALL_NUMBER
    if peer.call_all(calls.length, small) != [SMALL] * SMALL_NUMBER:
        raise RuntimeError("an argument did not arrive whole")
    done = time.perf_counter()
    return [
        Figure(subject, UP, "B/s", (size / (sent - began),)),
        Figure(subject, DOWN, "B/s", (size / (received - sent),)),
        Figure(subject, MANY, "B/s", (SMALL * SMALL_NUMBER / (done - received),)),
    ]


def _with_server(measured: Callable[[Server, int], list[Figure]], size: int) -> list[Figure]:
    server = Server()
    server.start()
    try:
        return measured(server, size)
    finally:
        server.stop()


def _measure_pipe(server: Server, size: int) -> list[Figure]:
    """Time ``ssh`` from the first byte to its end: connecting is no matter of transfer."""
    ssh = ["ssh", "-F", str(server.config), server.alias]
    chunk = bytes(1 << 20)
    command = [*ssh, "echo; cat >/dev/null"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(1)
        began = time.perf_counter()
        for _ in range(size // len(chunk)):
            process.stdin.write(chunk)
        process.stdin.close()
        process.wait()
        up = time.perf_counter() - began
    with subprocess.Popen([*ssh, f"head -c {size} /dev/zero"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        began = time.perf_counter()
        while process.stdout.read(len(chunk)):
            continue
        down = time.perf_counter() - began
    return [
        Figure(PIPE, UP, "B/s", (size / up,)),
        Figure(PIPE, DOWN, "B/s", (size / down,)),
    ]


async def _measure_raw(server: Server, size: int) -> list[Figure]:
    try:
        import asyncssh
    except ImportError as exc:
        raise CannotMeasure("asyncssh is not installed") from exc
    chunk = bytes(1 << 18)
    async with asyncssh.connect(
        "127.0.0.1",
        server.port,
        known_hosts=str(server.known_hosts),
        client_keys=[str(server.key)],
        config=[],
        encryption_algs=[CIPHER],
    ) as connection:
        began = time.perf_counter()
        process: Any = await connection.create_process("cat >/dev/null", encoding=None)
        for _ in range(size // len(chunk)):
            process.stdin.write(chunk)
            await process.stdin.drain()
        process.stdin.write_eof()
        await process.wait()
        up = time.perf_counter() - began
        began = time.perf_counter()
        process = await connection.create_process(f"head -c {size} /dev/zero", encoding=None)
        received = 0
        while data := await process.stdout.read(1 << 18):
            received += len(data)
        down = time.perf_counter() - began
    if received != size:
        raise RuntimeError(f"{received} of {size} bytes came back")
    return [Figure(RAW, UP, "B/s", (size / up,)), Figure(RAW, DOWN, "B/s", (size / down,))]


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with what afarm should reach."""
    lines = []
    for metric, floor, part in (
        (UP, RAW, 0.95),
        (DOWN, RAW, 0.95),
        (UP, PIPE, 0.75),
        (DOWN, PIPE, 0.9),
    ):
        mine = median_of(figures, "SSH: afarm reuse", metric)
        theirs = median_of(figures, floor, metric)
        if mine is not None and theirs is not None:
            lines.append(aim(f"afarm over SSH, {metric}, part of {floor}", mine / theirs, part))
    return lines
