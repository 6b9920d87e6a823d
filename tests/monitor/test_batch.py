"""What the variables of batch systems say of this node's share of a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._monitor.batch import Job
from afarm._monitor.bound import least

MIB = 1 << 20

SLURM = {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node7"}
PBS = {"PBS_JOBID": "17.server"}
LSF = {"LSB_JOBID": "17"}
GRID_ENGINE = {"JOB_ID": "17", "SGE_TASK_ID": "undefined"}


def job(environ: dict[str, str], root: str = "/") -> Job:
    return Job(environ, "node7.example.org", root)


@pytest.mark.parametrize(
    ("environ", "cores"),
    [
        (SLURM, None),
        (SLURM | {"SLURM_CPUS_ON_NODE": "8"}, (8, "SLURM_CPUS_ON_NODE")),
        # A batch script may use what all its tasks have.
        (
            SLURM | {"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2"},
            (8, "SLURM_CPUS_ON_NODE"),
        ),
        # One of several tasks of a step here has its own part.
        (
            SLURM | {"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2", "SLURM_STEP_ID": "0"},
            (2, "SLURM_CPUS_PER_TASK"),
        ),
        (
            SLURM | {"SLURM_JOB_CPUS_PER_NODE": "8(x2),4", "SLURM_NODEID": "2"},
            (4, "SLURM_JOB_CPUS_PER_NODE"),
        ),
        (SLURM | {"SLURM_JOB_CPUS_PER_NODE": "6"}, (6, "SLURM_JOB_CPUS_PER_NODE")),
        (SLURM | {"SLURM_JOB_CPUS_PER_NODE": "0"}, None),
        (SLURM | {"SLURM_JOB_CPUS_PER_NODE": "6,8"}, None),  # which of them is this one?
        (SLURM | {"SLURM_JOB_CPUS_PER_NODE": "6", "SLURM_NODEID": "3"}, None),
        # A shell of salloc has the variables, and is not on a node of the job.
        ({"SLURM_JOB_ID": "17", "SLURM_JOB_CPUS_PER_NODE": "6"}, None),
        (PBS | {"NCPUS": "4"}, (4, "NCPUS")),
        ({"NCPUS": "4"}, None),  # anyone's
        (PBS | {"PBS_NUM_PPN": "3", "PBS_NP": "6"}, (3, "PBS_NUM_PPN")),
        (PBS | {"PBS_NP": "6"}, (6, "PBS_NP")),
        (LSF | {"LSB_DJOB_NUMPROC": "6"}, (6, "LSB_DJOB_NUMPROC")),
        (
            LSF | {"LSB_DJOB_NUMPROC": "6", "LSB_MCPU_HOSTS": "node1 4 node7 2"},
            (2, "LSB_MCPU_HOSTS"),
        ),
        (
            LSF | {"LSB_DJOB_NUMPROC": "6", "LSB_MCPU_HOSTS": "node1 4 node2 2"},
            (6, "LSB_DJOB_NUMPROC"),
        ),
        (GRID_ENGINE | {"NSLOTS": "5"}, (5, "NSLOTS")),
        ({"NSLOTS": "5"}, None),
        ({"OMP_NUM_THREADS": "1"}, None),
    ],
)
def test_cores_are_this_nodes_share(environ: dict[str, str], cores: tuple[int, str] | None) -> None:
    assert least(job(environ).cores()) == cores


def test_grid_engine_lists_the_slots_of_each_host(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(
        "node1.example.org 4 all.q@node1 UNDEFINED\nnode7.example.org 2 all.q@node7 UNDEFINED\n"
        "node7.example.org 1 long.q@node7 UNDEFINED\n"
    )
    environ = GRID_ENGINE | {"NSLOTS": "7", "PE_HOSTFILE": "/hosts"}
    assert least(job(environ, str(tmp_path)).cores()) == (3, "PE_HOSTFILE")
    (tmp_path / "hosts").unlink()
    assert least(job(environ, str(tmp_path)).cores()) == (7, "NSLOTS")


@pytest.mark.parametrize(
    ("environ", "memory"),
    [
        (SLURM | {"SLURM_MEM_PER_NODE": "4096"}, (4096 * MIB, "SLURM_MEM_PER_NODE")),
        (SLURM | {"SLURM_MEM_PER_NODE": "0"}, None),  # all the node has
        (
            SLURM | {"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"},
            (4000 * MIB, "SLURM_MEM_PER_CPU x SLURM_CPUS_ON_NODE"),
        ),
        (SLURM | {"SLURM_MEM_PER_CPU": "1000"}, None),
        ({"SLURM_MEM_PER_NODE": "4096"}, None),
        (PBS, None),
    ],
)
def test_memory_is_this_nodes_share(
    environ: dict[str, str], memory: tuple[int, str] | None
) -> None:
    assert least(job(environ).memory()) == memory


# fmt: off
NAMES = (
    "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "SLURM_NODEID", "SLURM_CPUS_PER_TASK",
    "SLURM_STEP_ID", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "NCPUS",
    "PBS_NUM_PPN", "PBS_NP", "LSB_MCPU_HOSTS", "NSLOTS",
    "LSB_DJOB_NUMPROC", "PE_HOSTFILE",
)
# fmt: on
values = st.text(st.sampled_from("0123456789(x),- node7.é²"), max_size=12)


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_no_variable_limits_to_nothing_whatever_it_holds(environ: dict[str, str]) -> None:
    everywhere = job(environ | SLURM | PBS | LSF | GRID_ENGINE, "/nowhere")
    for bound in (*everywhere.cores(), *everywhere.memory()):
        assert bound.amount > 0
