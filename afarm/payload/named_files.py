"""How large the files are that arguments name, without waiting for a file system that hangs."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from queue import SimpleQueue
from typing import NamedTuple

# Seconds that are waited for an answer: the loop does nothing else meanwhile. A file system over
# the network answers within some ms; the change of threads takes 0.1 ms.
_PATIENCE = 0.01

# The part of the time that may be spent so, and seconds that may be spent at once.
_SHARE = 0.05
_AT_ONCE = 0.25

# File systems that wait for no other machine.
_LOCAL = frozenset({"ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"})
_MOST_FOLDERS = 4096  # known to lie on one

_LONGEST = 1024  # characters

# What ends as names of files do: "scan.tar.gz", not "3.5 or so".
_NAME = re.compile(r"[^\n\0]*\.[A-Za-z]\w{0,7}")


def may_name_a_file(text: str) -> bool:
    """Tell whether a string looks like the path of a file here."""
    if len(text) > _LONGEST or "://" in text:
        return False
    if os.sep in text:
        return "\n" not in text and "\0" not in text
    return _NAME.fullmatch(text) is not None


class _Answer(NamedTuple):
    """The bytes of a regular file, if it is one, and whether it lies on this machine."""

    size: int | None
    local: bool


class NamedFiles:
    """Asks for the sizes of files: in a thread, one at a time, and not too often.

    While a question is not answered, as when a file server does not respond, no other is asked:
    only the first to ask has waited, for 10 ms. Folders that were found to lie on this machine
    are looked into at once.
    """

    def __init__(self) -> None:
        self._questions: SimpleQueue[tuple[str, list[_Answer], threading.Lock]] = SimpleQueue()
        self._asking = threading.Lock()  # executors ask from any thread
        self._unanswered: threading.Lock | None = None
        self._thread: threading.Thread | None = None
        self._folders: set[str] = set()
        self._spent = 0.0  # seconds, less what has become free since
        self._asked_at = 0.0

    def size(self, path: str) -> int | None:
        """Return the bytes of a regular file, or ``None`` if there is none or nobody knows yet."""
        folder = os.path.dirname(path)
        if folder in self._folders:
            found = _look(path)
            if found is None or not stat.S_ISLNK(found.st_mode):
                return _size(found)
        if not self._asking.acquire(blocking=False):
            return None
        try:
            answer = self._ask(path)
        finally:
            self._asking.release()
        if answer is None:
            return None
        if answer.local and len(self._folders) < _MOST_FOLDERS:
            self._folders.add(folder)
        return answer.size

    def _ask(self, path: str) -> _Answer | None:
        now = time.monotonic()
        self._spent = max(0.0, self._spent - _SHARE * (now - self._asked_at))
        self._asked_at = now
        if self._spent > _AT_ONCE:
            return None
        if self._unanswered is not None:
            if self._unanswered.locked():
                return None
            self._unanswered = None
        if self._thread is None:
            # It must not keep the interpreter from ending, as those of an executor do.
            self._thread = threading.Thread(
                target=_answer_all, args=(self._questions,), name="afarm-files", daemon=True
            )
            self._thread.start()
        answers: list[_Answer] = []
        answered = threading.Lock()
        answered.acquire()
        self._questions.put((path, answers, answered))
        if not answered.acquire(timeout=_PATIENCE):
            self._unanswered = answered
        self._spent += time.monotonic() - now
        return answers[0] if answers else None


def _answer_all(questions: SimpleQueue[tuple[str, list[_Answer], threading.Lock]]) -> None:
    local: dict[int, bool] = {}  # by device
    while True:
        path, answers, answered = questions.get()
        answers.append(_answer(path, local))
        answered.release()


def _answer(path: str, local: dict[int, bool]) -> _Answer:
    """Return how large a file is; waits as long as its file system takes."""
    try:
        found = os.stat(path)
        device = os.stat(os.path.dirname(path) or ".").st_dev
    except (OSError, ValueError):  # no file, or no name of one
        return _Answer(None, False)
    if device not in local:
        local[device] = _kind_of(device) in _LOCAL
    return _Answer(_size(found), local[device])


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def _size(found: os.stat_result | None) -> int | None:
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None


def _kind_of(device: int) -> str:
    """Return the kind of the file system on a device; empty where nobody knows (Linux only)."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                # proc(5): ID, parent, device, root, mount point, options, optional fields; after
                # a dash the kind.
                before, _, after = line.partition(" - ")
                if before.split()[2] == name:
                    return after.split()[0]
    except OSError:
        return ""
    return ""


NAMED_FILES = NamedFiles()
