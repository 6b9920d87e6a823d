"""How long do many workers take to import one environment: each node's own tree, or a shared one?

Workers on one host or several of `tests/testbed.py` all import the same packages at once, each
in a new interpreter, after `submit` on an open connection:

- *node's tree*: from the environment that the farm has sent to the node (its time counts);
- *shared folder*: from the folder in which the packages are installed here, which the hosts
  mount (`fuse_server`): a file system whose operations each cost a round trip, with what an NFS
  client may keep at its defaults, and a server that does nothing else;
- *afarm's workers*: as calls do that import for themselves. One process of the node imports, and
  is forked.

The link of each host is shaped, the same for all three. The first time nothing is on the nodes,
in none of their caches; again: the same once more. What happens once is done before: packing and
compressing for the farm, as installing into the shared folder. `operations` are those that somebody
on a host waited for. The hosts share this machine's cores, which importing itself keeps busy, and
their disks are memory. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import calls, fuse_relay
from .dependencies import PACKAGES, bare_python, function
from .figures import Figure
from .fuse_server import SharedFolder
from .hosts import Hosts, hosts
from .question import CannotMeasure, aim, median_of

if TYPE_CHECKING:
    from afarm import Farm

TREE, SHARED, FORKED = "node's tree", "shared folder", "afarm's workers"

_TESTBED = 185
_MOUNTED_AT = "/mnt/shared"
_MIB_OF_A_CALL = 512


@dataclass(frozen=True, slots=True)
class Storm:
    """Who imports what.

    Attributes:
        package: As `PACKAGES` names it, and its distribution.
        workers: On each host.
        hosts: How many.
        way: From where.
    """

    package: str
    workers: int
    hosts: int
    way: str

    def __str__(self) -> str:
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        where = "1 host" if self.hosts == 1 else f"each of {self.hosts} hosts"
        return f"{self.package}, {workers} on {where}, {self.way}"


STORMS = {
    str(storm): storm
    for package in ("numpy", "scikit-learn")
    for workers, count in ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (4, 2), (4, 4))
    for storm in (Storm(package, workers, count, way) for way in (TREE, SHARED, FORKED))
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the link between this machine and each host."""
    parser.add_argument("--round-trip", default="1ms")
    parser.add_argument("--rate", default="100mbit")


def subjects(options: argparse.Namespace) -> Sequence[str]:
    """Return all combinations."""
    return list(STORMS)


def measure(subject: str, options: argparse.Namespace) -> list[Figure]:
    """Let all of them import twice."""
    storm = STORMS[subject]
    found = importlib.util.find_spec(PACKAGES[storm.package].partition(".")[0])
    if found is None or found.origin is None:
        raise CannotMeasure(f"{storm.package} is not installed here")
    installed = Path(found.origin).parent.parent
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(hosts(_TESTBED, storm.hosts, "--pyenv"))
        names = [f"h{number + 1}" for number in range(storm.hosts)]
        for name in names:
            bed.run("shape", name, options.round_trip, options.rate)
        shared = None
        if storm.way == SHARED:
            shared = stack.enter_context(SharedFolder(str(installed), bed.address))
            for name in names:
                stack.enter_context(_mounted(bed, name, shared.port))
        return asyncio.run(_measure_storm(subject, storm, bed, shared))


async def _measure_storm(
    subject: str, storm: Storm, bed: Hosts, shared: SharedFolder | None
) -> list[Figure]:
    import afarm

    names = [f"h{number + 1}" for number in range(storm.hosts)]
    memory = f"{_MIB_OF_A_CALL * storm.workers} MiB"
    nodes = [
        afarm.SSHNode(
            name, config=bed.config, cores=storm.workers, memory=memory, python=bare_python()
        )
        for name in names
    ]
    if storm.way != SHARED:
        _pack(PACKAGES[storm.package])
    async with afarm.Farm(nodes, isolation="fork", progress=False) as farm:
        while any(node.state != "up" for node in farm.nodes):
            await asyncio.sleep(0.01)
        received = _received(bed, names)
        waited_for = shared.operations if shared else 0
        first, each = await _let_all_import(farm, storm)
        received = _received(bed, names) - received
        figures = [
            Figure(subject, "first", "s", (first,)),
            Figure(subject, "one of them", "s", (statistics.median(each),)),
            Figure(subject, "received", "B", (float(received),)),
        ]
        if shared:
            waited_for = shared.operations - waited_for
            figures.append(Figure(subject, "operations", "", (float(waited_for),)))
        again, each = await _let_all_import(farm, storm)
    return [
        *figures,
        Figure(subject, "again", "s", (again,)),
        Figure(subject, "one of them again", "s", (statistics.median(each),)),
    ]


def _pack(module: str) -> None:
    from afarm.environments import Environment, analyze, deflate

    for bundle in Environment.shipped(analyze(function(module))).bundles:
        deflate(bundle)


async def _let_all_import(farm: Farm, storm: Storm) -> tuple[float, list[float]]:
    """Return how long it takes until the last has imported, and each of them, in seconds."""
    module = PACKAGES[storm.package]
    alike = farm.options(cores=1, memory=f"{_MIB_OF_A_CALL} MiB")
    if storm.way == TREE:
        alike = alike.options(packages=[storm.package])
    began = time.perf_counter()
    many = range(storm.workers * storm.hosts)
    if storm.way == FORKED:
        fn = function(module)
        invocations = [alike.submit(fn) for _ in many]
        await asyncio.gather(*invocations)
        each = [i.usage.wall_time for i in invocations if i.usage and i.usage.wall_time]
    else:
        folder = _MOUNTED_AT if storm.way == SHARED else ""
        each = await asyncio.gather(
            *(alike.submit(calls.import_afresh, module, folder) for _ in many)
        )
    return time.perf_counter() - began, each


@contextlib.contextmanager
def _mounted(bed: Hosts, host: str, port: int) -> Iterator[None]:
    """Let a host mount what is served here.

    Raises:
        CannotMeasure: If it cannot: its kernel has no FUSE, say.
    """
    command = bed.ssh(f"root@{host}", "python3", "-", bed.address, str(port), _MOUNTED_AT)
    with (
        open(fuse_relay.__file__, "rb") as script,
        subprocess.Popen(
            command, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as relay,
    ):
        assert relay.stdout is not None
        assert relay.stderr is not None
        try:
            if relay.stdout.readline().strip() != fuse_relay.MOUNTED:
                raise CannotMeasure(f"no shared folder: {relay.stderr.read().strip()[-200:]}")
            yield
        finally:
            relay.kill()


def _received(bed: Hosts, names: Sequence[str]) -> int:
    """Return the bytes that the hosts have received over their links since they were started."""
    counters = [bed.call(name, "cat /proc/net/dev").partition("eth0:")[2] for name in names]
    return sum(int(each.split()[0]) for each in counters)


def conclude(figures: Sequence[Figure]) -> list[str]:
    """Compare with the shared folder."""
    lines = []
    for subject, storm in STORMS.items():
        if storm.way == SHARED:
            continue
        shared = str(Storm(storm.package, storm.workers, storm.hosts, SHARED))
        for metric in ("first", "again"):
            ours, theirs = median_of(figures, subject, metric), median_of(figures, shared, metric)
            if ours is not None and theirs is not None:
                name = f"{subject}, {metric}, by that of a {SHARED}"
                lines.append(aim(name, ours / theirs, 1.0, at_most=True))
    return lines
