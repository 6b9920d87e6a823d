"""The GPUs of a node: which there are, and which of them an attempt sees.

A call is shown its GPUs by ``CUDA_VISIBLE_DEVICES``, and one that was given none is shown
none. The variable counts when a process first uses CUDA, and never again. So it is set
before a worker's first call and stays as it is: a worker that has run calls gets only
such as have the same GPUs, and one that has had some ends with the last of these. Until
then it holds memory there, and nobody else is given its GPUs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .._monitor.nvml import Nvml, open_nvml
from .calls import Attempt
from .pool import Worker

VARIABLE = "CUDA_VISIBLE_DEVICES"

# Numbers mean what nvidia-smi means by them only in this order; CUDA's own begins with the
# fastest (CUDA Programming Guide, "CUDA Environment Variables").
_ORDER = "CUDA_DEVICE_ORDER"
_BY_BUS = "PCI_BUS_ID"

# Has `torch.cuda.is_available`, which packages call when they are imported, ask NVML and not
# CUDA, so that templates may be forked afterwards (PyTorch, "CUDA semantics").
_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


class Found(NamedTuple):
    """The GPUs that a node was found to have.

    Attributes:
        devices: As ``CUDA_VISIBLE_DEVICES`` names them: numbers, or UUIDs.
        source: Where they were found; empty where nothing speaks of GPUs.
    """

    devices: tuple[str, ...]
    source: str


def parse_visible(text: str) -> tuple[str, ...]:
    """Return the devices of a value of ``CUDA_VISIBLE_DEVICES``.

    CUDA stops at the first that cannot be one, such as -1, and shows none where one comes
    twice (so does PyTorch, ``torch.cuda._parse_visible_devices``).
    """
    found: list[str] = []
    for part in text.split(","):
        name = part.strip()
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        if name in found:
            return ()
        found.append(name)
    return tuple(found)


def find_gpus(
    environ: Mapping[str, str],
    *,
    open_library: Callable[[], Nvml | None] = open_nvml,
    root: str = "/",
) -> Found:
    """Return the GPUs of this node: those that we are shown, else those that the driver has.

    Args:
        environ: The environment variables. A batch system names a job's GPUs there.
        open_library: Returns NVML if it is there.
        root: The folder that stands for ``/``.
    """
    visible = environ.get(VARIABLE)
    if visible is not None:
        return Found(parse_visible(visible), VARIABLE)
    library = open_library()
    if library is not None:
        count = library.count
        library.close()
        return Found(tuple(map(str, range(count))), "NVML")
    try:
        count = len(os.listdir(f"{root.rstrip('/')}/proc/driver/nvidia/gpus"))
    except OSError:
        return Found((), "")
    return Found(tuple(map(str, range(count))), "the driver")


def offered(found: Found, stated: int | None) -> tuple[str, ...]:
    """Return the devices of a node of which a number was stated, or ``None``.

    The user's word counts: where more are stated than were found, numbers are added.
    """
    if stated is None:
        return found.devices
    more = (str(number) for number in range(stated + len(found.devices)))
    return (*found.devices, *(each for each in more if each not in found.devices))[:stated]


def hiding(environ: Mapping[str, str], found: Found, devices: Sequence[str]) -> dict[str, str]:
    """Return the variables of processes that are not to see a GPU, on a node that has some."""
    if not found.devices and not devices:
        return {}
    variables = {VARIABLE: ""}
    if _CHECK not in environ:
        variables[_CHECK] = "1"
    if VARIABLE not in environ and _ORDER not in environ:
        variables[_ORDER] = _BY_BUS
    return variables


class Devices:
    """Which of a node's devices are free. Pure.

    Args:
        names: All of them, in the order in which they are given.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._free = dict.fromkeys(names)

    def take(self, count: int) -> tuple[str, ...] | None:
        """Return the first ``count`` free ones, which are free no longer; ``None``: too few."""
        if count > len(self._free):
            return None
        taken = tuple(name for name in self._names if name in self._free)[:count]
        for name in taken:
            del self._free[name]
        return taken

    def give_back(self, names: Sequence[str]) -> None:
        """Take back devices that were taken.

        Raises:
            ValueError: If one of them was not.
        """
        for name in names:
            if name in self._free or name not in self._names:
                raise ValueError(f"device {name} was not taken")
            self._free[name] = None


class Gpus:
    """Gives attempts their GPUs, and has them back when the last process is gone.

    What a farm counts as free may be held for a moment longer, by a worker that ends or
    hands over a large result; who comes meanwhile waits here.

    Args:
        names: The devices.
        stage: Starts an attempt that waited.
        dispose: Ends a worker.
    """

    def __init__(
        self,
        names: Sequence[str],
        stage: Callable[[Attempt], None],
        dispose: Callable[[Worker], None],
    ) -> None:
        self._devices = Devices(names)
        self._stage = stage
        self._dispose = dispose
        self._waiting: deque[Attempt] = deque()
        self._held: dict[Worker, tuple[str, ...]] = {}

    def claim(self, attempt: Attempt) -> bool:
        """Give an attempt what it is to have; ``False``: it waits, and is staged again."""
        count = attempt.run.limits.gpus or 0
        if attempt.devices or not count:
            return True
        taken = self._devices.take(count) if not self._waiting else None
        if taken is None:
            self._waiting.append(attempt)
            return False
        attempt.devices = taken
        return True

    def forget(self, attempt: Attempt) -> None:
        """An attempt does not wait any more."""
        if attempt in self._waiting:
            self._waiting.remove(attempt)

    def hand_on(self, attempt: Attempt, follower: Attempt) -> None:
        """Give an attempt's GPUs to the one that follows it in the same process."""
        follower.devices, attempt.devices = attempt.devices, ()

    def end(self, attempt: Attempt, worker: Worker | None) -> None:
        """An attempt is over: its GPUs are free when nothing of it is left.

        Args:
            attempt: The attempt.
            worker: The process that ran it, if one did; nobody follows it there.
        """
        devices, attempt.devices = attempt.devices, ()
        if not devices:
            return
        if worker is None or worker.slot.workers.get(worker.number) is not worker:
            self._devices.give_back(devices)
            return
        self._held[worker] = devices
        if not worker.leaving:
            self._dispose(worker)

    def worker_gone(self, worker: Worker) -> None:
        """A worker and its tree are gone."""
        self._devices.give_back(self._held.pop(worker, ()))
        self.serve()

    def serve(self) -> None:
        """Stage those who waited, as far as there is something for them."""
        while self._waiting:
            taken = self._devices.take(self._waiting[0].run.limits.gpus or 0)
            if taken is None:
                return
            attempt = self._waiting.popleft()
            attempt.devices = taken
            self._stage(attempt)
