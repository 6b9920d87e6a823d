"""Results that are kept for later runs: small ones in the record, large ones in files beside it."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from .._wire.payloads import Buffer, make_room, slices
from .schema import connect_to_read

# Above this a result lies in a file: SQLite would copy it several times, and its file would
# not shrink when it goes (their own measurement: above 100 kB files are faster).
BESIDE = 1_000_000


class Results:
    """Reads what is kept, and writes the files; all of it blocks.

    Args:
        path: The record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.with_name(f"{path.name}.results")
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def find(self, key: str) -> list[Buffer] | None:
        """Return a result as a pickle and its buffers, writable; ``None`` if it is not there.

        What a crash of the machine has spoilt counts as not there.
        """
        with self._lock:
            if self._connection is None:
                self._connection = connect_to_read(self._path, any_thread=True)
            row = self._connection.execute(
                "SELECT lengths, data, file, digest FROM result WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        lengths, data, file, digest = row
        layout = [int(length) for length in lengths.split(",")]
        return open_parts(layout, data) if file is None else self.read(file, layout, digest)

    def read(self, file: str, layout: Sequence[int], digest: str) -> list[Buffer] | None:
        """Return a result that lies in a file; ``None`` if it is not what was written."""
        parts: list[Buffer] = [make_room(length) for length in layout]
        try:
            with open(self.folder / file, "rb", buffering=0) as stream:
                for part in parts:
                    view = memoryview(part)
                    while view.nbytes:
                        count = stream.readinto(view)
                        if not count:
                            return None
                        view = view[count:]
        except FileNotFoundError:
            return None
        return parts if digest_of(parts) == digest else None

    def write(self, key: str, parts: Sequence[Buffer], digest: str) -> str:
        """Write a large result; return its file's name in the folder.

        Raises:
            OSError: If that cannot be done.
        """
        folder = self.folder / key[:2]
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        # Another farm may write a result of the same call, which need not be equal.
        name = f"{key[:2]}/{key[2:]}-{digest[:16]}"
        unfinished = folder / f".{secrets.token_hex(8)}"
        try:
            with open(unfinished, "xb", buffering=0) as stream:
                os.fchmod(stream.fileno(), 0o600)
                for part in parts:
                    view = memoryview(part)
                    while view.nbytes:
                        view = view[stream.write(view) :]
            os.replace(unfinished, self.folder / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        return name

    def close(self) -> None:
        """Let go of the record."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def open_parts(layout: Sequence[int], data: bytes) -> list[Buffer]:
    """Return the parts of a result that was kept as one."""
    [parts] = slices(bytearray(data), [layout])
    return list(parts)


def digest_of(parts: Sequence[Buffer]) -> str:
    """Return the digest of a result's bytes."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
