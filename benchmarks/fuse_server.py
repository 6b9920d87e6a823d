"""A folder that hosts mount over a link, each operation at the cost of one round trip.

It speaks the kernel's own protocol (FUSE 7.31, <linux/fuse.h>) over TCP; `fuse_relay` on a host
passes it on from and to ``/dev/fuse``. Read-only. What a client may keep is what an NFS client
keeps at its default settings, at best: attributes, names and names that are not there for 60 s
(``acregmax``, ``acdirmax``), the content of files and folders as long as they do not change
(nothing does). An ``open`` asks the server each time (close-to-open consistency). Folders are
listed with the attributes of what is in them (``READDIRPLUS``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable
from types import TracebackType

_QUESTION = struct.Struct("=IIQQIII4x")  # length, opcode, unique, node, uid, gid, pid
_ANSWER = struct.Struct("=IiQ")  # length, error, unique
_INIT = struct.Struct("=IIIIHHIIHH32x")
_ENTRY = struct.Struct("=QQQQII")  # node, generation, how long the name holds, the attributes
_ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")
_READ = struct.Struct("=QQI")  # handle, offset, size

_BELIEVED = 60  # s
_MOST = 1 << 20  # bytes of one answer, as NFS has them
_PAGE = 4096

# INIT: reads may overtake each other; folders with attributes; reads of up to `_MOST`.
_ASYNC_READ, _READDIRPLUS, _PARALLEL_FOLDERS, _MAX_PAGES = 1, 1 << 13, 1 << 18, 1 << 22
# OPEN: what is in the page cache is still good; so is a listing.
_KEEP, _KEEP_LISTING = 1 << 1, 1 << 3

# Opcodes to which there is no answer: FORGET, INTERRUPT, BATCH_FORGET.
_SILENT = frozenset((2, 36, 42))
# RELEASE, INIT and RELEASEDIR: nobody waits for them.
_NO_ROUND_TRIP = frozenset((18, 26, 29))


class SharedFolder:
    """Serves a folder until it is left.

    Args:
        folder: Which.
        address: Of this machine, as hosts reach it; the port is chosen.

    Attributes:
        operations: Questions that somebody waited for.
    """

    def __init__(self, folder: str, address: str) -> None:
        self._folder = folder
        self._socket = socket.create_server((address, 0))
        self.operations = 0

    @property
    def port(self) -> int:
        """Where it answers."""
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> SharedFolder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # it was closed
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        answers = Answers(self._folder)
        # A client that goes away in the middle of something is gone as well.
        with contextlib.suppress(ConnectionError), client, client.makefile("rb") as questions:
            while len(head := questions.read(_QUESTION.size)) == _QUESTION.size:
                length, opcode, unique, node, *_ = _QUESTION.unpack(head)
                body = questions.read(length - _QUESTION.size)
                if opcode in _SILENT:
                    continue
                self.operations += opcode not in _NO_ROUND_TRIP
                try:
                    error, answer = 0, answers.to(opcode, node, body)
                except OSError as exc:
                    error, answer = -(exc.errno or errno.EIO), b""
                client.sendall(_ANSWER.pack(_ANSWER.size + len(answer), error, unique) + answer)


class Answers:
    """What one client has looked up and opened. Nodes are numbered as they are looked up."""

    def __init__(self, folder: str) -> None:
        self._paths = ["", folder]  # the root is number 1
        self._nodes = {folder: 1}
        self._listings: dict[int, list[str]] = {}
        self._by_opcode: dict[int, Callable[[int, bytes], bytes]] = {
            1: self._look_up,
            3: self._attributes,
            5: self._read_link,
            14: self._open,
            15: self._read,
            17: self._statfs,
            18: self._release,
            26: self._initialise,
            27: self._open_folder,
            29: self._release_folder,
            44: self._list,
        }

    def to(self, opcode: int, node: int, body: bytes) -> bytes:
        """Return the answer to a question.

        Raises:
            OSError: If that is the answer; ``ENOSYS``: do not ask again (access rights,
                extended attributes, what is to be written).
        """
        if opcode not in self._by_opcode:
            raise OSError(errno.ENOSYS, "not needed here")
        return self._by_opcode[opcode](node, body)

    def _initialise(self, node: int, body: bytes) -> bytes:
        _, _, ahead, offered = struct.unpack_from("=IIII", body)
        flags = offered & (_ASYNC_READ | _READDIRPLUS | _PARALLEL_FOLDERS | _MAX_PAGES)
        return _INIT.pack(7, 31, ahead, flags, 64, 48, _PAGE, 1, _MOST // _PAGE, 0)

    def _entry(self, path: str) -> bytes:
        attributes = _attributes_of(path)
        if path not in self._nodes:
            self._nodes[path] = len(self._paths)
            self._paths.append(path)
        return _ENTRY.pack(self._nodes[path], 0, _BELIEVED, _BELIEVED, 0, 0) + attributes

    def _look_up(self, node: int, body: bytes) -> bytes:
        try:
            return self._entry(os.path.join(self._paths[node], os.fsdecode(body[:-1])))
        except FileNotFoundError:
            # Number 0: it is not there, and that may be believed as well.
            return _ENTRY.pack(0, 0, _BELIEVED, 0, 0, 0) + bytes(_ATTRIBUTES.size)

    def _attributes(self, node: int, body: bytes) -> bytes:
        return struct.pack("=QII", _BELIEVED, 0, 0) + _attributes_of(self._paths[node])

    def _read_link(self, node: int, body: bytes) -> bytes:
        return os.fsencode(os.readlink(self._paths[node]))

    def _open(self, node: int, body: bytes) -> bytes:
        return _opened(os.open(self._paths[node], os.O_RDONLY | os.O_CLOEXEC), _KEEP)

    def _read(self, node: int, body: bytes) -> bytes:
        handle, offset, size = _READ.unpack_from(body)
        return os.pread(handle, size, offset)

    def _release(self, node: int, body: bytes) -> bytes:
        os.close(*struct.unpack_from("=Q", body))
        return b""

    def _statfs(self, node: int, body: bytes) -> bytes:
        return struct.pack("=QQQQQIIII24x", 0, 0, 0, 0, 0, _PAGE, 255, _PAGE, 0)

    def _open_folder(self, node: int, body: bytes) -> bytes:
        self._listings[node] = sorted(os.listdir(self._paths[node]))
        return _opened(0, _KEEP | _KEEP_LISTING)

    def _release_folder(self, node: int, body: bytes) -> bytes:
        return b""  # another process may be listing it: the listing holds as long as the mount

    def _list(self, node: int, body: bytes) -> bytes:
        _, offset, size = _READ.unpack_from(body)
        answer = b""
        names = self._listings[node]
        for number in range(offset, len(names)):
            entry = self._entry(os.path.join(self._paths[node], names[number]))
            inode, kind = struct.unpack_from("=Q", entry)[0], _kind(entry)
            name = os.fsencode(names[number])
            row = entry + struct.pack("=QQII", inode, number + 1, len(name), kind) + name
            row += bytes(-len(row) % 8)
            if len(answer) + len(row) > size:
                break
            answer += row
        return answer


def _attributes_of(path: str) -> bytes:
    status = os.lstat(path)
    seconds = (int(status.st_atime), int(status.st_mtime), int(status.st_ctime))
    nanoseconds = (0, status.st_mtime_ns % 10**9, status.st_ctime_ns % 10**9)
    return _ATTRIBUTES.pack(
        status.st_ino, status.st_size, status.st_blocks, *seconds, *nanoseconds,
        status.st_mode, status.st_nlink, 0, 0, 0, _PAGE, 0,
    )  # fmt: skip


def _kind(entry: bytes) -> int:
    """Return the type of a directory entry (DT_REG and so on) from its attributes."""
    mode = _ATTRIBUTES.unpack_from(entry, _ENTRY.size)[9]
    return int(stat.S_IFMT(mode)) >> 12


def _opened(handle: int, flags: int) -> bytes:
    return struct.pack("=QII", handle, flags, 0)
