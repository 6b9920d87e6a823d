"""Functions that tests run on nodes: importable there, as a user's own module is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

COUNTER = 0


def add(a: int, b: int = 1) -> int:
    return a + b


def fail(kind: type[BaseException] = ValueError, *args: object) -> None:
    raise kind(*args)


def fail_with_cause() -> None:
    try:
        raise KeyError("inner")
    except KeyError as exc:
        error = ValueError("outer")
        error.add_note("a note of the function's own")
        raise error from exc


def fail_in_group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


class Awkward(Exception):
    """An exception whose constructor arguments do not unpickle."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")


def fail_awkwardly() -> None:
    raise Awkward(3, text="no")


def echo(value: Any) -> Any:
    return value


def blob(size: int) -> bytes:
    return b"x" * size


def zeros(size: int) -> Any:
    import numpy as np

    return np.zeros(size, np.uint8)


def total(array: Any) -> tuple[int, bool]:
    return int(array.sum()), bool(array.flags.writeable)


def pid(_: object = None) -> int:
    return os.getpid()


def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def touch_and_wait(path: str, seconds: float = 60.0) -> None:
    """Write this process's number into a file, then wait."""
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(seconds)


def pass_gate(name: str, gate: Path) -> str:
    """Return the name; that of the first one when the gate is there, and no sooner."""
    while name == "first" and not gate.exists():
        time.sleep(0.005)
    return name


def append_line(path: str, line: str = "x") -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def spawn_stubborn(path: str) -> None:
    """Leave a grandchild in a session of its own that ignores SIGTERM."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    while not os.path.exists(path) or not os.path.getsize(path):
        time.sleep(0.01)


def spawn_stubborn_and_wait(path: str) -> None:
    spawn_stubborn(path)
    time.sleep(600)


def leave(code: int) -> None:
    sys.exit(code)


def leave_at_once(code: int) -> None:
    os._exit(code)


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(10)


def close_standard_streams() -> str:
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.close(fd)
    return "closed"


def print_much(megabytes: int) -> int:
    line = "x" * 1023 + "\n"
    for _ in range(megabytes * 1024):
        os.write(1, line.encode())
    return megabytes


def print_and_fail() -> None:
    print("to standard output", flush=True)
    os.write(2, b"and from C to standard error\n")
    os._exit(7)


def print_and_return(text: str) -> str:
    print(text)
    return text


def change_state() -> None:
    os.chdir("/")
    os.umask(0o077)
    os.environ["AFARM_TEST_LEFT"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)


def read_state() -> tuple[str, int, str | None, bool, object]:
    mask = os.umask(0)
    os.umask(mask)
    return (
        os.getcwd(),
        mask,
        os.environ.get("AFARM_TEST_LEFT"),
        signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
    )


def draw() -> tuple[float, float]:
    import numpy as np

    return random.random(), float(np.random.random())


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


def count_calls() -> int:
    global COUNTER
    COUNTER += 1
    return COUNTER


def take_memory(size: int, seconds: float = 0.0) -> int:
    data = bytearray(size)
    data[::4096] = b"x" * len(data[::4096])
    time.sleep(seconds)
    return len(data)


def burn(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def write_file(size: int, seconds: float = 0.0) -> int:
    with open("data", "wb") as file:
        for _ in range(size // 65536):
            file.write(b"x" * 65536)
    time.sleep(seconds)
    return size


def list_directory() -> tuple[str, list[str]]:
    open("left", "w").close()
    return os.getcwd(), os.listdir(".")


def make_lock() -> object:
    return threading.Lock()


async def add_async(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def numbers(count: int, error: BaseException | None = None) -> Iterator[int]:
    yield from range(count)
    if error is not None:
        raise error


async def numbers_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def locks(count: int) -> Iterator[object]:
    yield from range(count)
    yield threading.Lock()


def endless(path: str) -> Iterator[int]:
    """Count, and say in a file how far it got."""
    number = 0
    while True:
        with open(path, "w") as file:
            file.write(str(number))
        yield number
        number += 1


def large_items(count: int, size: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number]) * size


class Picky:
    """An object that cannot be unpickled in one process."""

    def __init__(self, forbidden: int) -> None:
        self.value = 5
        self.forbidden = forbidden

    def __reduce__(self) -> tuple[object, ...]:
        return make_picky, (self.forbidden,)


def make_picky(forbidden: int) -> Picky:
    if os.getpid() == forbidden:
        raise RuntimeError("unpickled where it must not be")
    return Picky(forbidden)


def spawn_agent_pid() -> int:
    """Return the process number of the agent above this worker."""
    pid = os.getpid()
    while True:
        with open(f"/proc/{pid}/stat") as file:
            parent = int(file.read().rsplit(")", 1)[1].split()[1])
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            line = file.read()
        if b"zlib" not in line:
            return pid
        pid = parent


def wait_first_time(path: str) -> str:
    """Wait for ever the first time, and say so the second."""
    if os.path.exists(path):
        return "second time"
    touch_and_wait(path, 600)
    return "never"


def kill_group(how: str) -> None:
    """Kill what a careless function takes for its own process group."""
    if how == "kill":
        os.kill(0, signal.SIGKILL)
    else:
        os.killpg(0, signal.SIGKILL)
    time.sleep(10)


def visible_gpus() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def use_gpus(folder: str) -> str:
    """Return the GPUs that this call sees, of each of which it is the only user meanwhile."""
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    used = [os.path.join(folder, name) for name in visible.split(",") if name]
    for path in used:
        os.mkdir(path)
    time.sleep(0.005)
    for path in used:
        os.rmdir(path)
    return visible
