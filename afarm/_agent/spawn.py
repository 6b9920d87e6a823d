"""Starting another program from the agent, which has one thread and so may simply fork."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

from . import system


def spawn(argv: list[str], environment: Mapping[str, str], streams: tuple[int, int, int]) -> int:
    """Start a program; return its process's number.

    Args:
        argv: The program's path and its arguments.
        environment: Its environment variables.
        streams: What is to be its standard input, output and error; it gets no other
            descriptor.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        # Out of the way first: 0 to 2 may be among them.
        high = [os.dup(stream) for stream in streams]
        for target, stream in enumerate(high):
            os.dup2(stream, target)
        system.close_all_but()
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execve(argv[0], argv, environment)
    except BaseException as exc:  # the child must not run the agent's code
        with contextlib.suppress(OSError):
            os.write(2, f"cannot start {argv[0]}: {exc}\n".encode())
    finally:
        os._exit(127)
