"""Mounts a folder that another machine serves: sent to a host, and run there by its own Python.

Arguments: where `fuse_server` answers, host and port, and where to mount. It passes on what the
kernel asks and what the server answers, and keeps nothing: whatever the kernel does not know
itself costs a round trip, as it does an NFS client. Only whether a file is a terminal, which Python
asks of each that it opens, is answered here. Needs root. The mount lasts as long as this.
"""

import ctypes
import errno
import os
import socket
import stat
import struct
import sys
import threading

# What it says when the folder can be used.
MOUNTED = "mounted"

_DEVICE = "/dev/fuse"
# Above the largest question: they are short, since nothing is written.
_LARGEST_QUESTION = 1 << 17
# Of a question: length, opcode, unique; of an answer: length, error, unique.
_HEAD, _ANSWER, _IOCTL = struct.Struct("=IIQ"), struct.Struct("=IiQ"), 39
_READ_ONLY, _NO_SUID, _NO_DEVICES = 1, 2, 4


def main(host: str, port: str, place: str) -> None:
    """Mount, and pass on until the server goes away or the folder is unmounted."""
    device = _mount(place)
    server = socket.create_connection((host, int(port)))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_pass_answers, args=(server, device), daemon=True).start()
    print(MOUNTED, flush=True)
    while True:
        try:
            question = os.read(device, _LARGEST_QUESTION)
            _, opcode, unique = _HEAD.unpack_from(question)
            if opcode == _IOCTL:
                os.write(device, _ANSWER.pack(_ANSWER.size, -errno.ENOTTY, unique))
            else:
                server.sendall(question)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                continue  # it was taken back before it was read
            if exc.errno in (errno.ENODEV, errno.EPIPE, errno.ECONNRESET):
                return  # unmounted, or the server has gone
            raise


def _mount(place: str) -> int:
    if not os.path.exists(_DEVICE):
        os.mknod(_DEVICE, 0o600 | stat.S_IFCHR, os.makedev(10, 229))
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    os.makedirs(place, exist_ok=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    flags = ctypes.c_ulong(_READ_ONLY | _NO_SUID | _NO_DEVICES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"shared", os.fsencode(place), b"fuse", flags, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)
    return device


def _pass_answers(server: socket.socket, device: int) -> None:
    """Give the kernel each answer whole: its first word says how long it is."""
    with server.makefile("rb") as answers:
        while head := answers.read(4):
            try:
                os.write(device, head + answers.read(struct.unpack("=I", head)[0] - 4))
            except FileNotFoundError:
                continue  # who asked has been killed
    os._exit(0)  # the server has gone; the other thread waits for the kernel


if __name__ == "__main__":
    main(*sys.argv[1:])
