"""The agent's side of the storekeeper: what concerns bundles goes there, and back."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from .._wire.frames import BULK, Fragment, pack_header
from .._wire.messages import (
    Blob,
    Credit,
    Environment,
    EnvironmentState,
    Forget,
    Lost,
    Message,
    Stored,
    decode,
    encode,
)
from ..errors import RemoteProtocolError
from . import internal
from .channel import Channel
from .loop import Loop
from .spawn import spawn

_FROM_KEEPER = frozenset(
    each.kind for each in (Credit, EnvironmentState, Lost, Stored, internal.Arriving)
)


class Keeper:
    """The storekeeper process, started when the first bundle or environment comes.

    Args:
        loop: The agent's loop.
        root: The folder of caches.
        early: A folder for environments in which imports begin while modules are on their way.
        tell: Takes what the farm is to hear.
        decided: Takes an environment's number, the interpreter that runs it, the modules
            to preload, and why it cannot be had.
        arriving: Takes an environment's number, the interpreter, the modules to preload, and
            the early environment's folder. It is decided later.
    """

    def __init__(
        self,
        loop: Loop,
        root: str,
        early: str,
        tell: Callable[[Message], None],
        decided: Callable[[int, str, list[str], str], None],
        arriving: Callable[[int, str, list[str], str], None],
    ) -> None:
        self._loop = loop
        self._root = root
        self._tell = tell
        self._decided = decided
        self._arriving = arriving
        self._folder = early
        self._early: dict[int, str] = {}
        self._channel: Channel | None = None
        self._environments: dict[int, tuple[str, list[str]]] = {}
        self._bundles: set[int] = set()
        self.pid = 0

    def expects(self, blob: int) -> bool:
        """Whether a blob is a bundle on its way."""
        return blob in self._bundles

    def prepare(self, message: Environment) -> None:
        """Have an environment built."""
        description = json.loads(message.description)
        self._environments[message.environment] = (
            description["digest"], description.get("preload", []),
        )  # fmt: skip
        self._send(encode(message))

    def begin(self, message: Blob) -> None:
        """Expect a bundle."""
        self._bundles.add(message.blob)
        self._send(encode(message))

    def take(self, blob: int, data: memoryview) -> None:
        """Take bytes of a bundle; the storekeeper renews the credit for them."""
        self._send(pack_header(BULK, blob, len(data)) + bytes(data))

    def forget(self, message: Forget) -> None:
        """A bundle will not be sent to its end."""
        self._send(encode(message))

    def _send(self, data: bytes) -> None:
        channel = self._channel
        if channel is None:
            channel = self._channel = self._start()
        channel.send(data)
        self._loop.touch(channel)

    def _start(self) -> Channel:
        theirs, ours = socket.socketpair()
        package: Any = sys.modules[__name__.partition(".")[0]]
        argv = [
            sys.executable, "-I", "-S", "-c", package.__first_line__, "storekeeper", self._root,
            "", self._folder,
        ]  # fmt: skip
        self.pid = spawn(argv, dict(os.environ), (theirs.fileno(), theirs.fileno(), 2))
        theirs.close()
        channel = Channel(ours, _FROM_KEEPER)
        channel.send(package.__bootstrap__)
        self._loop.read(ours.fileno(), self._read)
        return channel

    def _read(self) -> None:
        channel = self._channel
        assert channel is not None
        try:
            found = channel.receive()
        except RemoteProtocolError:
            found = None
        if found is None:
            self._lose(channel)
            return
        for each in found:
            if not isinstance(each, Fragment):
                self._hear(decode(each))

    def _hear(self, message: Message) -> None:
        if isinstance(message, internal.Arriving):
            _, preload = self._environments[message.environment]
            self._early[message.environment] = message.folder
            executable = os.path.join(message.folder, "bin", "python")
            self._arriving(message.environment, executable, preload, message.folder)
            return
        if not isinstance(message, EnvironmentState):
            if isinstance(message, Stored | Lost):
                self._bundles.discard(message.blob)
            self._tell(message)
            return
        digest, preload = self._environments.pop(message.environment, ("", []))
        folder = self._early.pop(message.environment, "")
        if message.problem or not digest:
            self._decided(message.environment, "", [], message.problem or "it was not asked for")
            return
        # Only now: it brings hashlib, which is 3 MB that a local agent does without.
        from .store import environment_path

        folder = folder or environment_path(self._root, digest)
        executable = os.path.join(folder, "bin", "python")
        self._decided(message.environment, executable, preload, "")

    def _lose(self, channel: Channel) -> None:
        """The storekeeper is gone: what it was building cannot be had; the next one begins anew."""
        self._loop.forget(channel.sock.fileno())
        channel.close()
        self._channel = None
        for blob in self._bundles:
            self._tell(Lost(blob, "the process that stores bundles has died"))
        self._bundles.clear()
        lost, self._environments = self._environments, {}
        self._early.clear()
        for environment in lost:
            self._decided(environment, "", [], "the process that builds environments has died")

    def end(self) -> None:
        """End the process; what it held in the store may be removed by others."""
        if self._channel is not None:
            self._channel.close()
            os.kill(self.pid, signal.SIGTERM)
