"""What an invocation may use, and what it used: `Resources` and `Usage`.

Everything inside the project is in base units: bytes, seconds, cores. The words
people write, ``"1.5 GiB"``, exist only at the edge, in `parse_bytes`.

This module is streamed to nodes: standard library only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import IntFlag
from typing import NamedTuple, NewType

Bytes = NewType("Bytes", int)
Seconds = NewType("Seconds", float)

_SIZE = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[a-zA-Z]*)\s*")

# SI prefixes are powers of ten and IEC prefixes powers of two (IEC 80000-13), as
# `dd`, `numfmt` and Dask's `parse_bytes` have them. A single letter is what people
# type for memory (`ulimit`, `docker --memory`): a power of two.
_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtpe", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgtpe", 1)},
    **{letter: 1024**power for power, letter in enumerate("kmgtpe", 1)},
}


def parse_bytes(size: int | float | str) -> Bytes:
    """Return a number of bytes from ``"1.5 GiB"``, ``"200 MB"``, ``"4g"`` or a plain number.

    Raises:
        ValueError: If it is not a size, is negative, or is not finite.
        TypeError: If it is neither a number nor a string.
    """
    if isinstance(size, bool) or not isinstance(size, (int, float, str)):
        raise TypeError(f"a size is a number of bytes or a string like '2 GiB', not {size!r}")
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        unit = _UNITS.get(match["unit"].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{size!r} is not a size; write it like '200 MB' or '1.5 GiB'")
        return Bytes(round(float(match["number"]) * unit))
    if not math.isfinite(size) or size < 0:
        raise ValueError(f"a size cannot be {size!r}")
    return Bytes(round(size))


def format_bytes(size: float) -> str:
    """Return a size for people: ``3.1 GiB``, ``512 B``."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class Resources:
    """What is stated for, predicted for, or granted to an invocation, or what a node has.

    Each is ``None`` where nothing was stated: no limit for an allocation, unknown
    for a capacity.

    Attributes:
        cores: CPU cores, fractions allowed.
        memory: Bytes of memory of the whole process tree, as `Usage.memory` counts it.
        disk: Bytes in the scratch directory.
        gpus: Whole GPUs.
        wall_time: Seconds from start to end.
        cpu_time: Seconds of CPU, user and system, of the whole process tree.
        processes: Processes alive at once, the invocation's own included.
    """

    cores: float | None = None
    memory: int | None = None
    disk: int | None = None
    gpus: int | None = None
    wall_time: float | None = None
    cpu_time: float | None = None
    processes: int | None = None

    def over(self, other: Resources) -> Resources:
        """Return these resources, with ``other``'s where these state nothing."""
        return Resources(
            other.cores if self.cores is None else self.cores,
            other.memory if self.memory is None else self.memory,
            other.disk if self.disk is None else self.disk,
            other.gpus if self.gpus is None else self.gpus,
            other.wall_time if self.wall_time is None else self.wall_time,
            other.cpu_time if self.cpu_time is None else self.cpu_time,
            other.processes if self.processes is None else self.processes,
        )


def astuple(resources: Resources) -> tuple[float | None, ...]:
    """Return the seven values in the order of the fields (`dataclasses.astuple` deep-copies)."""
    return (
        resources.cores,
        resources.memory,
        resources.disk,
        resources.gpus,
        resources.wall_time,
        resources.cpu_time,
        resources.processes,
    )


class Source(IntFlag):
    """Where the figures of a `Usage` come from, and what could not be had for them."""

    PROCESS = 1
    WATCH = 2
    TREE = 4
    TRACE = 8
    POLL = 16
    GROUP = 32
    NO_MARK = 1 << 8
    NO_COUNTERS = 1 << 9
    CUT_SHORT = 1 << 10
    UNTRACED = 1 << 11


_SOURCES = {
    Source.PROCESS: "the kernel's marks of the process",
    Source.WATCH: "looks from outside",
    Source.TREE: "looks at its descendants",
    Source.TRACE: "the kernel's marks of each descendant, read at its end",
    Source.POLL: "looks through psutil, mapped files included",
    Source.GROUP: "a control group stands behind its limits",
}

_FAULTS = {
    Source.NO_MARK: "the high-water mark of memory could not be read or reset: memory was sampled",
    Source.NO_COUNTERS: "the counters of bytes read and written could not be read",
    Source.CUT_SHORT: "the process died before it had measured itself: figures of the last look",
    Source.UNTRACED: (
        "its child processes came and went between two looks: of their memory is known only that "
        "none had more than memory_resident"
    ),
}


class Moment(NamedTuple):
    """One point of a usage's curve.

    Attributes:
        time: Seconds since the invocation began.
        memory: Bytes that its tree surely had, as `Usage.memory_low` counts them.
        cpu_time: Seconds of CPU it had used by then.
        processes: Processes alive.
    """

    time: float
    memory: int
    cpu_time: float
    processes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt used, as it was measured on its node; whole process tree.

    The call's own process measures itself, from before its function and arguments are
    unpickled until its result is pickled. "Looks" are readings from outside, every 50 ms, every
    5 ms near a limit or under fast growth, every 15 ms while there are child processes; of an
    invocation that has touched no memory and used no CPU for a second, every half second at
    most. Of an attempt that was stopped or died, looks are all there is. Control groups stand
    behind limits alone, and no figure is taken from one: what they count of memory has page
    cache in it. `monitor` and `faults` say how each came about.

    *Elsewhere* is where the kernel is not Linux: there only `afarm.monitor` measures, and looks
    are psutil's.

    Attributes:
        wall_time: Seconds from the call of the function to its return, exact (monotonic clock);
            of an attempt that was stopped, from its beginning to the last look. Elsewhere the
            same.
        cpu_user: Seconds of CPU in user mode: of the process and of every descendant that was
            waited for (``getrusage``), and all CPU of orphans (``wait4`` of who adopted them).
            User and system together are exact to microseconds, how they are divided is the
            kernel's estimate. Of descendants that nobody has waited for, as seen by looks
            (``/proc/PID/stat``, 10 ms). Elsewhere orphans are known by looks alone.
        cpu_system: Seconds of CPU in the kernel, counted in the same way.
        memory: Peak bytes the invocation itself took: anonymous and shared memory of
            its process tree, without its template's pages and without mapped files. Where
            nothing exact is to be had it is the upper end of a bracket whose lower end is
            `memory_low`: for one process (``VmHWM``, reset before the invocation) the two are
            apart by what it can have rewritten of inherited pages and by files that were
            mapped around the time of its peak; for several, by what rose and fell between
            two looks. Elsewhere resident memory on top of what the process had before the call,
            mapped files included: by its own mark (``ru_maxrss``), exact where that has risen
            during the call and no more than a bound else; of several processes the largest sum
            that was seen.
        memory_low: The lower end of that bracket; equal to `memory` where it is exact. What a
            stated limit is compared with. Elsewhere, of several processes, the largest of them,
            or near a limit what each has to itself (USS).
        memory_resident: The high-water mark of resident memory as the kernel keeps it
            (``VmHWM``), mapped files and inherited pages included: of one process exact to what
            the kernel counts in batches (0.3 MB were measured); over several alive at once, the
            largest sum that was seen, and at least the largest that was waited for. Elsewhere
            ``ru_maxrss``, or the largest sum that was seen.
        disk: Peak bytes in the scratch directory (blocks on the disk), as far as it was looked
            at: every half second while the call computes, more seldom where walking through it
            takes long (a hundredth of the time at most), and at the end. Elsewhere so where it
            is limited, else at the end.
        read_bytes: Bytes read from storage, of the process and of every descendant that was
            waited for (``/proc/PID/io``), of others as seen by looks; what the page cache had
            is not among them. Elsewhere not known: 0.
        write_bytes: Bytes written towards storage (``/proc/PID/io``), counted when the pages
            become dirty, also if they are removed before they are written. Elsewhere not
            known: 0.
        processes: Most processes alive at once that were seen; 2 at least where any was waited
            for, or was left.
        threads: Most threads alive at once, of all its processes, that were seen by looks or
            were there at the end.
        cores_peak: Most cores in use over one second, as seen by looks every quarter of a
            second (elsewhere at each), and at least the average over all that was measured.
        sources: Where these figures come from; `monitor` and `faults` say it in words.
        start: When it started, seconds since the epoch (UTC) by the node's clock.
        exit: Exit code, or minus the number of the signal that ended the process;
            ``None`` for a process that serves on after the invocation.
        curve: How memory, CPU and processes went over time as seen by looks, at most 64 points
            whatever the duration; empty for invocations of less than a second that ended well.
        gpu_memory: Peak bytes of each GPU that its process tree was seen to use, in the driver's
            order, as NVML tells them every quarter of a second: what rose and fell between two
            looks is missed, and a process that serves many calls keeps what earlier ones left
            there. Empty where nothing was seen: it used no GPU, was over before a look, or
            nobody tells (there is no NVML, or a container has process numbers of its own).
    """

    wall_time: float = 0.0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory: int = 0
    memory_low: int = 0
    memory_resident: int = 0
    disk: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    processes: int = 1
    threads: int = 1
    cores_peak: float = 0.0
    sources: int = 0
    start: float = 0.0
    exit: int | None = None
    curve: tuple[Moment, ...] = ()
    gpu_memory: tuple[int, ...] = ()

    @property
    def cpu_time(self) -> float:
        """Seconds of CPU, user and system."""
        return self.cpu_user + self.cpu_system

    @property
    def cores(self) -> float:
        """Average number of cores: CPU time over wall time.

        Of very short calls it is too high: the CPU time has what loading them took.
        """
        return self.cpu_time / self.wall_time if self.wall_time > 0 else 0.0

    @property
    def started_at(self) -> datetime:
        """When it started, in UTC, by the node's clock."""
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def monitor(self) -> str:
        """Where the figures come from, in words; empty where nothing was measured."""
        return "; ".join(text for source, text in _SOURCES.items() if source & self.sources)

    @property
    def faults(self) -> tuple[str, ...]:
        """What the monitor could not measure as it should have; mostly nothing."""
        return tuple(text for source, text in _FAULTS.items() if source & self.sources)


RESOURCE_NAMES = tuple(field.name for field in fields(Resources))
