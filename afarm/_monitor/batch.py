"""What a batch system has given this job on this node, by the variables it sets.

A batch system often enforces what it gave (by a cgroup or a cpuset, which `cgroups`
reads), and often only kills, late, who takes more. Either way the job's share is what its
variables say. They are believed only inside of a job of the system that sets them: names
like ``NCPUS`` are anyone's. Each is an upper limit; garbage limits nothing.

Slurm (sbatch(1) and srun(1), "OUTPUT ENVIRONMENT VARIABLES"), where ``SLURMD_NODENAME``
says that this process runs on a node of the job (a shell of ``salloc`` has the job's
variables without being there):

- ``SLURM_CPUS_ON_NODE``: CPUs on this node that are allocated to the batch step or step.
- ``SLURM_JOB_CPUS_PER_NODE``: CPUs available to the job on its nodes, ``8(x2),4``, in the
  order of its node list; ``SLURM_NODEID`` is this node's place in that order.
- ``SLURM_CPUS_PER_TASK``: CPUs requested for each task. What one task of a step has
  (``SLURM_STEP_ID`` is set there): a batch script itself may use those of all its tasks.
- ``SLURM_MEM_PER_NODE``, ``SLURM_MEM_PER_CPU``: as ``--mem`` and ``--mem-per-cpu``, in
  megabytes (of 1024 KiB); 0 stands for all the node has.

PBS and Torque, where ``PBS_JOBID`` is set:

- ``NCPUS`` (PBS Professional User's Guide, "PBS Environment Variables"): threads, by
  default CPUs, on the vnode.
- ``PBS_NUM_PPN``, ``PBS_NP`` (Torque, "Exported Batch Environment Variables"): processors
  per node, and execution slots of the whole job.

LSF (Configuration Reference, "Environment variables set for job execution"), where
``LSB_JOBID`` is set:

- ``LSB_MCPU_HOSTS``: hosts and the slots on each, ``hostA 4 hostB 2``.
- ``LSB_DJOB_NUMPROC``: slots of the whole job.

Grid Engine (qsub(1), "ENVIRONMENTAL VARIABLES"), where ``JOB_ID`` and ``SGE_TASK_ID`` are
set: ``NSLOTS``, queue slots of the whole job, and ``PE_HOSTFILE``, a file with a host, its
slots, its queue and its processors on each line.

``OMP_NUM_THREADS`` is none of these: it says what one program shall start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .bound import Bound, least
from .cgroups import read_text

_COUNTS = re.compile(r"(\d+)(?:\(x(\d+)\))?")

_MEGABYTE = 1 << 20


def _number(text: str | None) -> int | None:
    """Return a positive whole number, or ``None``."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return int(text) or None


def _expanded(counts: str) -> list[int]:
    """Return the numbers of ``8(x2),4``; nothing if it is something else."""
    found: list[int] = []
    for part in counts.split(","):
        match = _COUNTS.fullmatch(part)
        if match is None or int(match[2] or 1) > 1 << 20:
            return []
        found.extend([int(match[1])] * int(match[2] or 1))
    return found


def _is_host(name: str, host: str) -> bool:
    """Whether a name is this host's: each of the two may lack its domain."""
    return bool(host) and name.partition(".")[0] == host.partition(".")[0]


class Job:
    """The job that this process is part of, if it is part of one.

    Args:
        environ: Its environment variables.
        host: The name of this host.
        root: The folder that stands for ``/``.
    """

    def __init__(self, environ: Mapping[str, str], host: str, root: str = "/") -> None:
        self._environ = environ
        self._host = host
        self._root = root.rstrip("/")
        self._is_slurm = "SLURM_JOB_ID" in environ and "SLURMD_NODENAME" in environ
        self._is_pbs = "PBS_JOBID" in environ
        self._is_lsf = "LSB_JOBID" in environ
        self._is_grid_engine = "JOB_ID" in environ and "SGE_TASK_ID" in environ

    @property
    def limits_processes(self) -> bool:
        """Whether the limits of this process (setrlimit(2)) come from the job's request.

        PBS, LSF and Grid Engine set RLIMIT_AS, RLIMIT_DATA or RLIMIT_RSS from the memory
        that was requested, and watch the sum over the job's processes. Slurm hands on
        those of the shell that the job was submitted from.
        """
        return self._is_pbs or self._is_lsf or self._is_grid_engine

    def cores(self) -> Iterator[Bound]:
        """Yield what limits the cores on this node."""
        if self._is_slurm:
            yield from self._slurm_cores()
        if self._is_pbs:
            yield from self._first("NCPUS", "PBS_NUM_PPN", "PBS_NP")
        if self._is_lsf:
            yield from self._listed("LSB_MCPU_HOSTS", self._lsf_hosts(), "LSB_DJOB_NUMPROC")
        if self._is_grid_engine:
            yield from self._listed("PE_HOSTFILE", self._grid_engine_hosts(), "NSLOTS")

    def memory(self) -> Iterator[Bound]:
        """Yield what limits the memory on this node, in bytes."""
        if not self._is_slurm:
            return
        node = _number(self._environ.get("SLURM_MEM_PER_NODE"))
        if node is not None:
            yield Bound(node * _MEGABYTE, "SLURM_MEM_PER_NODE")
        each = _number(self._environ.get("SLURM_MEM_PER_CPU"))
        cpus = least(self._slurm_cores())
        if each is not None and cpus is not None:
            amount = each * _MEGABYTE * cpus.amount
            yield Bound(amount, f"SLURM_MEM_PER_CPU x {cpus.source}")

    def _first(self, *names: str) -> Iterator[Bound]:
        """Yield what the first of these variables says that says something."""
        for name in names:
            value = _number(self._environ.get(name))
            if value is not None:
                yield Bound(value, name)
                return

    def _listed(self, name: str, slots: Mapping[str, int], total: str) -> Iterator[Bound]:
        """Yield this host's part of a list of hosts; where it is not in it, the whole job's."""
        here = sum(count for each, count in slots.items() if _is_host(each, self._host))
        if here:
            yield Bound(here, name)
        else:
            yield from self._first(total)

    def _slurm_cores(self) -> Iterator[Bound]:
        found = list(self._first("SLURM_CPUS_ON_NODE"))
        listed = _expanded(self._environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
        where = self._environ.get("SLURM_NODEID", "0" if len(listed) == 1 else "")
        place = int(where) if where.isascii() and where.isdigit() else len(listed)
        if not found and place < len(listed) and listed[place]:
            found.append(Bound(listed[place], "SLURM_JOB_CPUS_PER_NODE"))
        if not found or "SLURM_STEP_ID" in self._environ:
            found.extend(self._first("SLURM_CPUS_PER_TASK"))
        yield from found

    def _lsf_hosts(self) -> dict[str, int]:
        words = self._environ.get("LSB_MCPU_HOSTS", "").split()
        found: dict[str, int] = {}
        for name, count in zip(words[::2], words[1::2], strict=False):
            found[name] = found.get(name, 0) + (_number(count) or 0)
        return found

    def _grid_engine_hosts(self) -> dict[str, int]:
        path = self._environ.get("PE_HOSTFILE", "")
        found: dict[str, int] = {}
        for line in read_text(self._root + path).splitlines() if path else ():
            fields = line.split()
            if len(fields) >= 2:
                found[fields[0]] = found.get(fields[0], 0) + (_number(fields[1]) or 0)
        return found
