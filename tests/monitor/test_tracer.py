"""The tracer by itself, on processes of this test."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A process of its own adopts orphans, traces, and waits for all that there is.
PROGRAM = """
import os, signal, sys
from afarm._agent import system
from afarm._monitor.proc import read_stat
from afarm._monitor.trace import WALL, Tracer

system.become_subreaper()
told, tell = os.pipe()
parent = os.fork()
if parent == 0:
    child = os.fork()
    if child == 0:
        signal.pause()
    os.write(tell, str(child).encode())
    signal.pause()
child = int(os.read(told, 100))


class Watcher:
    def born(self, pid, *, shares): ...
    def executed(self, pid): ...

    def exiting(self, pid):
        if pid == child and sys.argv[1] == "while the child ends":
            os.kill(parent, signal.SIGKILL)
            while read_stat(child).parent == parent:
                os.sched_yield()


tracer = Tracer(Watcher())
if not tracer.seize(child):
    sys.exit(77)
if sys.argv[1] == "before":
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
os.kill(child, signal.SIGTERM)
own = []
while True:
    pid, status = os.waitpid(child, WALL)
    if os.WIFSTOPPED(status):
        tracer.stopped(pid, status)
        continue
    own.append(tracer.is_own(child))
    break
if sys.argv[1] == "never":  # its zombie is its parent's
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.waitpid(child, 0)
    own.append(tracer.is_own(child))
print(own)
"""


@pytest.mark.parametrize(
    ("parent_dies", "own"),
    [("before", "[True]"), ("while the child ends", "[True]"), ("never", "[False, True]")],
)
def test_the_end_of_a_process_counts_once_whenever_it_loses_its_parent(
    parent_dies: str, own: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, parent_dies], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip("this machine does not allow ptrace")
    assert (done.stdout.strip(), done.stderr) == (own, "")
