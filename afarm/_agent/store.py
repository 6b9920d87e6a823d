"""The node's cache: unpacked bundles by content, and the environments made of them.

    ROOT/store/DIGEST/          one bundle: site-packages/, prefix/ or source/, and notes of sizes
    ROOT/environments/NAME/     a virtual environment of hard links into the store
    ROOT/interpreters/DIGEST/   an interpreter that was sent before the agent was

Everything is made in a hidden folder beside its place and renamed when it is whole, so
that a crash leaves nothing half-written in use. What a store has touched it holds by a
shared lock, a *lease*: see `leases`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence

from ..resources import format_bytes
from .build import (
    base_interpreter,
    build_environment,
    compile_sources,
    make_read_only,
    remove_tree,
)
from .cache import StoreError, claim, explain, free, why_not_to_ship
from .leases import (
    lock_if_possible,
    make_hidden,
    open_shared,
    remove_failed_installs,
    remove_leftovers,
    set_aside,
)
from .notes import read_note, write_note
from .room import bytes_of, make_room
from .unpack import Unpacker, UnpackError

DEFAULT_CAP = 10 << 30

_HEXADECIMAL = frozenset("0123456789abcdef")


def environment_path(root: str, digest: str) -> str:
    """Return where an environment lies, ready or not, for the interpreter that asks.

    The interpreter is part of the name: two of them on one node each get their own.
    """
    interpreter = hashlib.sha256(os.fsencode(base_interpreter())).hexdigest()
    return os.path.join(root, "environments", f"{digest}-{interpreter[:8]}")


class Store:
    """One process's view of the cache; what it has touched, it holds until `close`.

    Args:
        root: As `cache.default_root`.
        cap: Bytes above which what was used least recently goes; what is held stays.

    Raises:
        StoreError: If the folder cannot be used.
    """

    def __init__(self, root: str, cap: int = DEFAULT_CAP) -> None:
        self.root = root
        self._cap = cap
        self._bundles = os.path.join(root, "store")
        self._environments = os.path.join(root, "environments")
        self._leases: dict[str, int] = {}
        with self._explained():
            claim(root)
            for folder in (self._bundles, self._environments):
                os.makedirs(folder, mode=0o700, exist_ok=True)
                remove_leftovers(folder)
            remove_failed_installs(root)
            self.trim()
        if problem := why_not_to_ship(root):
            raise StoreError(problem)

    def close(self) -> None:
        """Let go of everything."""
        for lease in self._leases.values():
            os.close(lease)
        self._leases.clear()

    def has(self, digest: str) -> bool:
        """Return whether a bundle is there; if so, it stays until `close`.

        Raises:
            StoreError: If that is no digest, or the folder cannot be read.
        """
        path = self.bundle_path(digest)
        if path in self._leases:
            return True
        with self._explained():
            if not self._hold(path):
                return False
            if _is_whole(path):
                return True
            # The machine went down before all of it was on the disk, or somebody changed it.
            os.close(self._leases.pop(path))
            set_aside(path)
        return False

    def files(self, digest: str) -> dict[str, str]:
        """Return where each file of a bundle lies that is there, compiled ones included."""
        path = self.bundle_path(digest)
        sizes = read_note(path, "files.json")
        return {name: os.path.join(path, name) for name in sizes} if isinstance(sizes, dict) else {}

    def bundle_path(self, digest: str) -> str:
        """Return where a bundle lies, there or not.

        Raises:
            StoreError: If that is no digest.
        """
        if len(digest) != 64 or not _HEXADECIMAL.issuperset(digest):
            raise StoreError(f"{digest!r} is not the digest of a bundle")
        return os.path.join(self._bundles, digest)

    def environment_path(self, digest: str) -> str:
        """Return where an environment lies, ready or not."""
        return environment_path(self.root, digest)

    def begin(self, digest: str, size: int) -> StoreWriter:
        """Return a writer for a bundle of so many bytes.

        Raises:
            StoreError: If there is no room, or the folder cannot be written.
        """
        path = self.bundle_path(digest)
        # Bytecode and folders come on top: measured, a fifth for sources alone.
        needed = size + size // 4 + (1 << 20)
        with self._explained():
            self.trim(room=needed)
        left = free(self.root)
        if left < needed:
            raise StoreError(
                f"{self.root} has {format_bytes(left)} free and a bundle needs "
                f"{format_bytes(needed)}: make room, or name another folder with scratch="
            )
        with self._explained():
            folder, lock = make_hidden(path)
        return StoreWriter(self, digest, size, folder, lock)

    def environment(self, digest: str, bundles: Sequence[str]) -> tuple[str, list[str]]:
        """Return the path of an environment, built now unless it is there, and notes.

        Args:
            digest: Its name.
            bundles: The digests of its bundles, all of which must be there.

        Raises:
            StoreError: If a bundle is absent, or the environment cannot be written.
        """
        for bundle in bundles:
            if not self.has(bundle):
                raise StoreError(f"the bundle {bundle[:12]} is not in the store")
        path = self.environment_path(digest)
        stores = [self.bundle_path(bundle) for bundle in bundles]
        with self._explained():
            if self._hold(path):
                return path, []
            folder, lock = make_hidden(path)
            try:
                notes = build_environment(folder, path, stores)
                write_note(folder, "bundles.json", list(bundles))
                if notes:  # of copies, which take room of their own
                    write_note(folder, "size.json", bytes_of(folder, shared=False))
                make_read_only(folder)
                self.publish(folder, path, lock)
            except BaseException:
                os.close(lock)
                remove_tree(folder)
                raise
        return path, notes

    def publish(self, folder: str, path: str, lock: int) -> None:
        """Move what is whole to its place and hold it; if another was faster, take that one.

        Raises:
            OSError: If it cannot be moved.
        """
        try:
            os.rename(folder, path)
        except OSError as exc:
            if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if not self._hold(path):
                raise  # removed between the two: as good as a full disk
            os.close(lock)
            remove_tree(folder)
            return
        lock_if_possible(lock, fcntl.LOCK_SH)
        self._leases[path] = lock

    def trim(self, room: int = 0) -> None:
        """Remove what was used least recently, until so many bytes more find room.

        Raises:
            OSError: As `make_room`.
        """
        make_room(self.root, self._cap, room, self._leases)

    def _hold(self, path: str) -> bool:
        if path in self._leases:
            return True
        lease = open_shared(path)
        if lease is None:
            return False
        self._leases[path] = lease
        try:
            os.utime(path)  # who used it last
        except OSError as exc:
            if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in the user's terms why something cannot be written."""
        try:
            yield
        except OSError as exc:
            raise StoreError(explain(exc, self.root)) from exc


class StoreWriter:
    """A bundle that is arriving. Made by `Store.begin`."""

    def __init__(self, store: Store, digest: str, size: int, folder: str, lock: int) -> None:
        self._store = store
        self._digest = digest
        self._left = size
        self._folder: str | None = folder
        self._lock = lock
        self._unpacker = Unpacker(folder, digest)
        self._told = 0  # of its files

    @property
    def listed(self) -> Collection[str] | None:
        """The files of the bundle; ``None`` until it has said which."""
        return self._unpacker.listed

    def fresh(self) -> list[str]:
        """Return the paths of files that are whole and verified, and were not told before.

        They lie in the hidden folder in which the bundle is unpacked, and are links' worth:
        nothing changes them any more.
        """
        if self._folder is None:
            return []
        finished = self._unpacker.finished()
        told, self._told = self._told, len(finished)
        return finished[told:]

    def path_of(self, name: str) -> str:
        """Return where a file of the bundle lies now.

        Raises:
            StoreError: If the bundle was given up, or is in its place.
        """
        if self._folder is None:
            raise StoreError("the bundle was given up")
        return os.path.join(self._folder, name)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            StoreError: If they are not part of a bundle, or cannot be written. The
                writer is of no use after that; nothing stays on the disk.
        """
        if self._folder is None:
            raise StoreError("the bundle was given up")
        try:
            self._left -= len(data)
            if self._left < 0:
                raise UnpackError("more bytes came than were announced")
            self._unpacker.feed(data)
        except (UnpackError, OSError) as exc:
            self.abort()
            raise self._failure(exc) from exc

    def commit(self) -> None:
        """Verify what came, compile it, and put it in its place.

        Raises:
            StoreError: If it is not what its digest says, or cannot be written.
                Nothing stays on the disk.
        """
        if self._folder is None:
            raise StoreError("the bundle was given up")
        folder = self._folder
        try:
            if self._left:
                raise UnpackError(f"{self._left} bytes of it did not come")
            self._unpacker.close()
            compile_sources(folder, self._unpacker.names)
            _write_manifest(folder)
            make_read_only(folder)
            self._store.publish(folder, self._store.bundle_path(self._digest), self._lock)
            self._folder = None
        except (UnpackError, OSError) as exc:
            self.abort()
            raise self._failure(exc) from exc

    def abort(self) -> None:
        """Give it up and remove what was written."""
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        self._unpacker.abort()
        os.close(self._lock)
        remove_tree(folder)

    def _failure(self, exc: UnpackError | OSError) -> StoreError:
        if isinstance(exc, OSError):
            return StoreError(explain(exc, self._store.root))
        return StoreError(f"the bundle {self._digest[:12]} did not arrive as it was sent: {exc}")


def _write_manifest(folder: str) -> None:
    """Note the size of every file, and what all of them take on the disk."""
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            sizes[os.path.relpath(path, folder)] = os.lstat(path).st_size
    write_note(folder, "files.json", sizes)
    write_note(folder, "size.json", bytes_of(folder, shared=True))


def _is_whole(folder: str) -> bool:
    """Return whether every file of a bundle is there with its size (3 us for each)."""
    sizes = read_note(folder, "files.json")
    if not isinstance(sizes, dict):
        return False
    try:
        return all(os.lstat(os.path.join(folder, name)).st_size == sizes[name] for name in sizes)
    except FileNotFoundError:
        return False
