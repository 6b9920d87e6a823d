"""Nodes that Slurm gives: those of the allocation one is in, or a job for each.

The agent is started by ``srun``, whose standard input and output carry everything. Without
``--unbuffered`` srun keeps what has no line end, and the connection never says its first word.
Bulk passes srun at about 20 MiB/s; where the compute nodes can be reached by SSH, `SSHNode`
is faster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from ..resources import parse_bytes
from .command import CommandNode

_MIB = 1 << 20
_PART = re.compile(r"[^,\[\]]*(?:\[[^\[\]]*\][^,\[\]]*)*")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


class SlurmNodes(Sequence[CommandNode]):
    """Several nodes at once: ``Farm(SlurmNodes(4))``, or beside others in the list.

    Inside an allocation (``salloc``, ``sbatch``) these are its nodes, with all that it has of
    each. Elsewhere each is a job of its own, which waits in Slurm's queue.

    Args:
        count: How many. Inside an allocation, ``None`` is all of them.
        options: More arguments for ``srun``: ``["--partition=long", "--time=60"]``.
        cores: Of each, asked of Slurm; inside an allocation what it has there.
        memory: Of each, in bytes or as ``"16 GiB"``, asked of Slurm.
        gpus: Of each, asked of Slurm.
        python: The Python there, a path or a name; ``None``: it is looked for.
        scratch: Where the agents keep their files; empty: where they think best.
        labels: Words that calls can ask for.
        environ: Where Slurm's variables are looked for; by default the environment.

    Raises:
        ValueError: If there are not so many, or the number is missing outside an allocation.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        options: Sequence[str] = (),
        cores: int | None = None,
        memory: int | str | None = None,
        gpus: int | None = None,
        python: str | None = None,
        scratch: str = "",
        labels: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"count is a number of nodes, at least 1, not {count!r}")
        asked = _asked(memory, gpus)
        nodes = []
        for name, where, allocated in _places(count, os.environ if environ is None else environ):
            cpus = allocated if cores is None else cores
            argv = ["srun", "--unbuffered", "--quiet", "--nodes=1", "--ntasks=1", *where, *asked]
            if cpus is not None:
                argv.append(f"--cpus-per-task={cpus}")
            nodes.append(
                CommandNode(
                    [*argv, *options],
                    python=python,
                    cores=cpus,
                    memory=memory,
                    gpus=gpus,
                    scratch=scratch,
                    labels=tuple(labels),
                    name=name,
                )
            )
        self._nodes = tuple(nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, at: int) -> CommandNode:  # type: ignore[override]  # no slices
        return self._nodes[at]

    def __repr__(self) -> str:
        return f"<SlurmNodes {', '.join(node.name for node in self._nodes)}>"


def _asked(memory: int | str | None, gpus: int | None) -> list[str]:
    found = []
    if memory is not None:
        found.append(f"--mem={-(-parse_bytes(memory) // _MIB)}M")
    if gpus is not None:
        found.append(f"--gres=gpu:{gpus}")
    return found


def _places(
    count: int | None, environ: Mapping[str, str]
) -> Iterator[tuple[str, list[str], int | None]]:
    """Yield the name of each node, the arguments that lead to it, and the cores it has for us."""
    listed = environ.get("SLURM_JOB_NODELIST")
    if listed is None:
        if count is None:
            raise ValueError("SlurmNodes() outside an allocation needs to be told how many nodes")
        for number in range(1, count + 1):
            yield f"slurm-{number}", [], None
        return
    hosts = expand_hostlist(listed)
    if count is not None and count > len(hosts):
        raise ValueError(f"this allocation has {len(hosts)} nodes, not {count}: {listed}")
    cpus = expand_counts(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    for at, host in enumerate(hosts[:count]):
        # The step that is the farm itself, if it is one, has the same cores.
        yield host, [f"--nodelist={host}", "--overlap"], cpus[at] if at < len(cpus) else None


def expand_hostlist(listed: str) -> list[str]:
    """Return the hosts of a list as Slurm writes it: ``"gpu[01-03,7],login"``.

    Raises:
        ValueError: If it is none.
    """
    hosts: list[str] = []
    at = 0
    while at < len(listed):
        match = _PART.match(listed, at)
        if match is None or match.end() == at or listed[match.end() :][:1] not in ("", ","):
            raise ValueError(f"not a list of hosts: {listed!r}")
        hosts += _expand_part(match[0], listed)
        at = match.end() + 1
    return hosts


def _expand_part(part: str, listed: str) -> list[str]:
    pieces = _BRACKET.split(part)  # text, ranges, text, ranges, text
    choices = [
        _expand_ranges(piece, listed) if odd % 2 else [piece] for odd, piece in enumerate(pieces)
    ]
    return ["".join(chosen) for chosen in product(*choices)]


def _expand_ranges(ranges: str, listed: str) -> list[str]:
    found = []
    for each in ranges.split(","):
        match = _RANGE.fullmatch(each.strip())
        if match is None:
            raise ValueError(f"not a list of hosts: {listed!r}")
        first, last = match[1], match[2] or match[1]
        found += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return found


def expand_counts(counts: str) -> list[int]:
    """Return the numbers of a list as Slurm writes it: ``"8(x3),4"`` is 8, 8, 8, 4."""
    found: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        found += [int(number)] * int(times or 1)
    return found
