"""execnet: a Python at the other end of a pipe or of ssh, and channels to it.

It ships neither functions nor their modules and has no pool; what is written here is the
least that serves calls with it: a loop at the other end, calls sent ahead to both in turn.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .base import WORKERS, Peer, Wait
from .server import Server

_SERVE = """
import os, pickle, sys
root, channel_path = channel.receive()
os.chdir(root)
sys.path[:0] = channel_path
for number, call in channel:
    fn, args = pickle.loads(call)
    try:
        answer = (True, fn(*args))
    except BaseException as exc:
        answer = (False, repr(exc))
    channel.send((number, pickle.dumps(answer)))
"""


class ExecnetPeer(Peer):
    """Two gateways, to processes on this machine or over ssh to a loopback server."""

    def __init__(self, transport: str = "") -> None:
        self._over_ssh = transport == "ssh"
        self._server: Server | None = None
        self._channels: list[Any] = []
        self._answers: Any = None
        self._group: Any = None
        self._sent = 0
        self._received: dict[int, bytes] = {}

    def open(self) -> None:
        import execnet

        spec = "popen"
        if self._over_ssh:
            self._server = Server()
            self._server.start()
            spec = f"ssh=-F {self._server.config} {self._server.alias}//python={sys.executable}"
        self._group = execnet.Group([spec] * WORKERS)
        self._channels = [gateway.remote_exec(_SERVE) for gateway in self._group]
        for channel in self._channels:
            channel.send((os.getcwd(), [os.getcwd()]))
        self._answers = execnet.MultiChannel(self._channels).make_receive_queue()
        self.call(len, "")

    def close(self) -> None:
        self._group.terminate(timeout=2)
        if self._server is not None:
            self._server.stop()

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        number = self._sent
        self._sent += 1
        self._channels[number % WORKERS].send((number, pickle.dumps((fn, args), protocol=5)))

        def wait(seconds: float) -> Any:
            while number not in self._received:
                try:
                    _, (answered, value) = self._answers.get(timeout=seconds)
                except queue.Empty:
                    raise TimeoutError from None
                self._received[answered] = value
            worked, result = pickle.loads(self._received.pop(number))
            if not worked:
                raise RuntimeError(result)
            return result

        return wait

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        waits = [self.submit(fn, argument) for argument in arguments]
        return [wait(60.0) for wait in waits]
