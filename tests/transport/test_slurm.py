"""Nodes of Slurm: what srun is asked for, and that an agent lives behind it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import afarm
from afarm.transport.hosts import expand
from afarm.transport.slurm import SlurmNodes, expand_counts, expand_hostlist

ALLOCATION = {"SLURM_JOB_NODELIST": "gpu[01-02],login", "SLURM_JOB_CPUS_PER_NODE": "8(x2),4"}


@pytest.mark.parametrize(
    ("listed", "hosts"),
    [
        ("lab1", ["lab1"]),
        ("lab1,lab2", ["lab1", "lab2"]),
        ("gpu[01-03,7]", ["gpu01", "gpu02", "gpu03", "gpu7"]),
        ("a[9-11]-ib", ["a9-ib", "a10-ib", "a11-ib"]),
        ("r[1-2]n[1-2],x", ["r1n1", "r1n2", "r2n1", "r2n2", "x"]),
        ("node[001-002],node[010]", ["node001", "node002", "node010"]),
    ],
)
def test_lists_of_hosts_are_read_as_slurm_writes_them(listed: str, hosts: list[str]) -> None:
    assert expand_hostlist(listed) == hosts


@pytest.mark.parametrize("listed", ["gpu[1-", "gpu[a-b]", "gpu]1", "gpu[1]]"])
def test_what_is_no_list_of_hosts_is_refused(listed: str) -> None:
    with pytest.raises(ValueError, match="not a list of hosts"):
        expand_hostlist(listed)


@given(st.lists(st.tuples(st.integers(1, 999), st.integers(1, 20)), max_size=6))
def test_counts_are_read_as_slurm_writes_them(runs: list[tuple[int, int]]) -> None:
    written = ",".join(f"{n}(x{times})" if times > 1 else str(n) for n, times in runs)
    assert expand_counts(written) == [n for n, times in runs for _ in range(times)]


def test_inside_an_allocation_its_nodes_are_taken() -> None:
    nodes = SlurmNodes(environ=ALLOCATION)
    assert [(node.name, node.cores) for node in nodes] == [("gpu01", 8), ("gpu02", 8), ("login", 4)]
    assert "--nodelist=gpu01" in nodes[0].argv
    assert "--overlap" in nodes[0].argv
    assert "--unbuffered" in nodes[0].argv
    assert [node.name for node in SlurmNodes(2, environ=ALLOCATION)] == ["gpu01", "gpu02"]
    with pytest.raises(ValueError, match="has 3 nodes, not 4"):
        SlurmNodes(4, environ=ALLOCATION)


def test_outside_each_node_is_a_job() -> None:
    nodes = SlurmNodes(
        2, options=["--time=60"], cores=4, memory="1.5 GiB", gpus=1, python="python3.11", environ={}
    )
    assert [node.name for node in nodes] == ["slurm-1", "slurm-2"]
    assert set(nodes[0].argv) >= {"--time=60", "--cpus-per-task=4", "--mem=1536M", "--gres=gpu:1"}
    assert nodes[0].python == "python3.11"
    with pytest.raises(ValueError, match="how many"):
        SlurmNodes(environ={})
    with pytest.raises(ValueError, match="at least 1"):
        SlurmNodes(0, environ={})


def test_they_stand_among_other_nodes() -> None:
    names = [node.name for node in expand(["lab1", SlurmNodes(2, environ=ALLOCATION)])]
    assert names == ["lab1", "gpu01", "gpu02"]
    assert [node.name for node in expand(SlurmNodes(2, environ={}))] == ["slurm-1", "slurm-2"]


@pytest.mark.slow
async def test_a_call_runs_behind_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Takes srun's options and runs the rest, as srun does on the node it was given.
    srun = tmp_path / "srun"
    srun.write_text(
        '#!/bin/sh\nwhile case $1 in --*) true;; *) false;; esac; do shift; done\nexec "$@"\n'
    )
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    nodes = SlurmNodes(2, environ=ALLOCATION, scratch=str(tmp_path / "scratch"))
    async with afarm.Farm(nodes, progress=False) as farm:
        assert await farm.options(node="gpu02").submit(abs, -3) == 3
