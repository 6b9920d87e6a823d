"""Functions that tests of the monitor run in workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from afarm._monitor.proc import read_status
from benchmarks import truths
from benchmarks.truths import MIB


def all_kinds() -> list[object]:
    found: list[object] = []
    # Signals that are handled, stop and continue, and kill.
    code = "import signal, sys; signal.signal(10, lambda *_: sys.exit(7)); print(1, flush=True); "
    child = subprocess.Popen([sys.executable, "-c", code + "signal.pause()"], stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    child.send_signal(signal.SIGCONT)
    os.waitpid(child.pid, os.WCONTINUED)
    child.send_signal(signal.SIGUSR1)
    found.append(child.wait())
    found.append(subprocess.call([sys.executable, "-c", "import os; os.abort()"]))
    # Threads that fork, pipelines, a shell, a program that is not there.
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(subprocess.call(["true"]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.append(results)
    found.append(subprocess.check_output("echo a b | tr a-z A-Z; (exit 3); echo $?", shell=True))
    try:
        subprocess.call(["/not/there"])
    except FileNotFoundError:
        found.append("not there")
    child_pid = os.fork()
    if child_pid == 0:
        os.execvp("sh", ["sh", "-c", "exit 5"])
    found.append(os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]))
    return found


def linger(path: str) -> None:
    children = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    orphan = os.fork()
    if orphan == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    Path(path).write_text(" ".join(map(str, [orphan, *(child.pid for child in children)])))
    time.sleep(1000)


def grow_in_child() -> None:
    truths.in_subprocess(400 * MIB, 5.0)


def leave_threads() -> None:
    """Leave processes behind that are starting threads, at whichever point they are."""
    code = "import threading, time; print(1, flush=True)\n"
    code += "while True: threading.Thread(target=time.sleep, args=(1000,)).start()"
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()


def anonymous_memory() -> int:
    """Return the bytes of this process that no file is behind."""
    status = read_status(os.getpid())
    assert status is not None
    return status.anonymous
