"""NVIDIA's management library, by ctypes: how many GPUs there are, and who uses their memory.

The library comes with the driver; where it is not there, or does not work, there is
nothing to read. Names and structures are those of the NVML API Reference Guide
(docs.nvidia.com/deploy/nvml-api). A process is known by its number in the namespace of
the machine: from inside of a container with process numbers of its own nobody is found.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import NamedTuple

LIBRARY = "libnvidia-ml.so.1"

_SUCCESS = 0
_INSUFFICIENT_SIZE = 7

# What a driver says that does not know, on Windows and in some virtual machines.
_NOT_AVAILABLE = 2**64 - 1

# More processes use a GPU than were there a moment ago: tried again so often.
_TRIES = 4

# Room for those that begin between two questions.
_SLACK = 8


class _Process(ctypes.Structure):
    """``nvmlProcessInfo_t``, of versions 2 and 3 of the question."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _OldProcess(ctypes.Structure):
    """``nvmlProcessInfo_v1_t``, of the question without a version."""

    _fields_ = (("pid", ctypes.c_uint), ("used_memory", ctypes.c_ulonglong))


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


# The newest that a driver has is asked: version 3 came with R510, 2 with R450.
_QUESTIONS: tuple[tuple[str, type[ctypes.Structure]], ...] = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", _Process),
    ("nvmlDeviceGetComputeRunningProcesses_v2", _Process),
    ("nvmlDeviceGetComputeRunningProcesses", _OldProcess),
)


class DeviceMemory(NamedTuple):
    """Memory of one GPU, in bytes."""

    total: int
    used: int


class Nvml:
    """The library, ready to be asked; `open_nvml` makes one.

    Args:
        library: As ctypes has loaded it.

    Raises:
        OSError: If it does not work here.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._ask, self._kind = self._question()
        self._call("nvmlInit_v2")
        try:
            count = ctypes.c_uint()
            self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
            self._devices = [self._handle(index) for index in range(count.value)]
        except OSError:
            self.close()
            raise

    def _call(self, name: str, *arguments: object) -> None:
        try:
            answer = self._library[name](*arguments)
        except AttributeError as exc:
            raise OSError(f"NVML has no {name}") from exc
        if answer != _SUCCESS:
            raise OSError(f"{name} failed with code {answer}")

    def _question(self) -> tuple[Callable[..., int], type[ctypes.Structure]]:
        for name, kind in _QUESTIONS:
            try:
                return self._library[name], kind
            except AttributeError:
                continue
        raise OSError("NVML does not tell which processes use a GPU")

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    @property
    def count(self) -> int:
        """How many GPUs this process may use."""
        return len(self._devices)

    def memory(self, index: int) -> DeviceMemory | None:
        """Return the memory of a GPU, used by anyone; ``None`` where it is not told."""
        found = _Memory()
        try:
            self._call("nvmlDeviceGetMemoryInfo", self._devices[index], ctypes.byref(found))
        except OSError:
            return None
        return DeviceMemory(found.total, found.used)

    def memory_by_process(self) -> list[dict[int, int]]:
        """Return, of each GPU, the bytes that each process uses there, as far as it is told."""
        return [
            {pid: used for pid, used in self._processes(device) if used != _NOT_AVAILABLE}
            for device in self._devices
        ]

    def _processes(self, device: ctypes.c_void_p) -> Iterator[tuple[int, int]]:
        """Yield the processes that compute on a GPU, and the bytes each uses of its memory."""
        room = _SLACK
        for _ in range(_TRIES):
            count = ctypes.c_uint(room)
            found = (self._kind * room)()
            answer = self._ask(device, ctypes.byref(count), found)
            if answer == _SUCCESS:
                for each in found[: count.value]:
                    yield int(each.pid), int(each.used_memory)
                return
            if answer != _INSUFFICIENT_SIZE:
                return
            room = count.value + _SLACK

    def close(self) -> None:
        """Let go of the library; it is not to be asked any more."""
        self._library["nvmlShutdown"]()


def open_nvml(path: str = LIBRARY) -> Nvml | None:
    """Return the library, or ``None`` where there is none that works."""
    try:
        return Nvml(ctypes.CDLL(path))
    except OSError:
        return None
