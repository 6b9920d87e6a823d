"""A worker without an agent: a fresh process that runs one call for whoever started it.

For platforms that have no ``/proc``, where no template and supervisor can watch it: its
caller does that from outside (`afarm.polling`), and answers for its end.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from .._monitor.plain_meter import PlainMeter
from .._wire.messages import encode
from . import system
from .internal import Ready
from .ordinary import become_ordinary
from .page import Page
from .spawning import Spawning
from .worker import run_worker


def main(leftover: bytes) -> None:
    """Run the call that arrives on descriptor 0.

    Argument: JSON with ``path`` (the entries of ``sys.path``) and ``folder``, in which are
    a file ``page`` (the shared page) and the folders ``calls`` and ``blobs``.
    """
    told = json.loads(sys.argv[2])
    folder = told["folder"]
    sock = system.move_socket_high(socket.socket(fileno=0))
    slot = Page(os.open(os.path.join(folder, "page"), os.O_RDWR)).slot(0)
    sys.path[:] = told["path"]
    become_ordinary()
    sock.sendall(encode(Ready(0, "", "")))
    calls, blobs = os.path.join(folder, "calls"), os.path.join(folder, "blobs")
    # Nobody traces it: what it would write to for that has no reader.
    run_worker(sock, slot, calls, blobs, "call", Spawning(slot, -1), PlainMeter())
