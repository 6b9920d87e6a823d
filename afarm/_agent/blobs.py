"""Functions and put objects as they arrive: small functions in memory, the rest in files."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from .._wire.messages import Blob, largest_body


@dataclass(slots=True)
class _Incoming:
    blob: Blob
    left: int
    pieces: list[bytes] | None  # in memory; else in the file
    descriptor: int = -1
    problem: str = ""


@dataclass(slots=True)
class Blobs:
    """The blobs of one session, but for bundles.

    Attributes:
        folder: Where files go.
        functions: Small functions, by blob.
    """

    folder: str
    functions: dict[int, bytes] = field(default_factory=dict)
    _files: set[int] = field(default_factory=set)
    _incoming: dict[int, _Incoming] = field(default_factory=dict)

    def __contains__(self, blob: int) -> bool:
        """Whether a blob is here, whole."""
        return blob in self.functions or blob in self._files

    def expects(self, blob: int) -> bool:
        """Whether bytes of a blob are on their way."""
        return blob in self._incoming

    def begin(self, blob: Blob) -> str | None:
        """Expect a blob; return as `add` does if it has no bytes at all."""
        in_memory = blob.role == "function" and blob.size <= largest_body()
        incoming = _Incoming(blob, blob.size, [] if in_memory else None)
        if not in_memory:
            try:
                incoming.descriptor = os.open(
                    self.path(blob.blob),
                    os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC,
                    0o400,
                )
            except OSError as exc:
                incoming.problem = f"cannot be stored: {exc}"
        self._incoming[blob.blob] = incoming
        return self.add(blob.blob, b"") if not blob.size else None

    def add(self, blob: int, data: bytes | memoryview) -> str | None:
        """Take the next bytes.

        Returns:
            ``None`` while more are to come, then an empty string, or why the blob is lost.
        """
        incoming = self._incoming[blob]
        incoming.left -= len(data)
        if incoming.pieces is not None:
            incoming.pieces.append(bytes(data))
        elif not incoming.problem:
            try:
                view = memoryview(data)
                while len(view):
                    view = view[os.write(incoming.descriptor, view) :]
            except OSError as exc:
                incoming.problem = f"cannot be stored: {exc}"
        if incoming.left > 0:
            return None
        return self._finish(blob, incoming)

    def _finish(self, blob: int, incoming: _Incoming) -> str:
        del self._incoming[blob]
        if incoming.descriptor >= 0:
            os.close(incoming.descriptor)
        if incoming.left < 0:
            incoming.problem = f"{-incoming.left} bytes more than announced"
        if incoming.problem:
            self.forget(blob)
        elif incoming.pieces is not None:
            self.functions[blob] = b"".join(incoming.pieces)
        else:
            self._files.add(blob)
        return incoming.problem

    def forget(self, blob: int) -> None:
        """Drop a blob. Who has its file mapped keeps it."""
        self.functions.pop(blob, None)
        self._files.discard(blob)
        incoming = self._incoming.pop(blob, None)
        if incoming is not None and incoming.descriptor >= 0:
            os.close(incoming.descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self.path(blob))

    def path(self, blob: int) -> str:
        """Return the file of a blob."""
        return os.path.join(self.folder, str(blob))
