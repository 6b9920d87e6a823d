"""The monitor held against programs that know what they use."""

from __future__ import annotations

import pytest

import afarm
from afarm import monitor
from benchmarks import truths
from benchmarks.truths import MIB, Truth
from tests.monitor import functions as do

# What a bare interpreter has by itself, as a child or as a worker that imports a module or two.
INTERPRETER = 7 * MIB


def measured(truth: Truth) -> afarm.Usage:
    return monitor.run_sync(truth.function, *truth.args)[1]


@pytest.fixture(scope="module")
def inherited() -> int:
    """What a worker inherits from its template, in bytes: as wide may the bracket be."""
    return monitor.run_sync(do.anonymous_memory)[0] + 2 * MIB


def name(truth: Truth) -> str:
    return truth.name


@pytest.mark.parametrize("truth", truths.MEMORY, ids=name)
def test_the_bracket_of_memory_holds_the_truth(truth: Truth, inherited: int) -> None:
    usage = measured(truth)

    assert truth.memory is not None
    most = truth.memory + truth.per_process + INTERPRETER
    assert usage.memory_low <= most * 1.02
    assert usage.memory >= truth.memory * 0.98 - MIB
    assert usage.memory - usage.memory_low <= inherited
    assert usage.memory_resident >= usage.memory_low


@pytest.mark.parametrize("truth", truths.PROCESSOR, ids=name)
def test_processor_time_of_all_descendants_is_counted(truth: Truth) -> None:
    usage = measured(truth)

    assert truth.cpu_time is not None
    assert truth.cpu_time - 0.01 <= usage.cpu_time <= truth.cpu_time * 1.1 + 0.3
    assert usage.cores_peak >= 0.9 * usage.cores


def test_what_is_written_is_counted() -> None:
    written, removed = (measured(truth) for truth in truths.OTHERS[:2])

    assert 100 * MIB <= written.write_bytes <= 110 * MIB
    assert 100 * MIB <= written.disk <= 101 * MIB
    assert 100 * MIB <= removed.disk <= 101 * MIB


def test_processes_and_threads_are_counted() -> None:
    with_processes, with_threads = (measured(truth) for truth in truths.OTHERS[2:])

    assert with_processes.processes == 5
    assert with_threads.threads == 9


def test_the_usage_says_how_it_came_about() -> None:
    alone, with_child = (
        measured(Truth("", truths.mapped, (MIB,))),
        measured(Truth("", truths.in_subprocess, (20 * MIB, 0.1))),
    )

    assert "the kernel's marks of the process" in alone.monitor
    assert "descendants" not in alone.monitor
    assert "descendants" in with_child.monitor
    assert alone.faults == with_child.faults == ()
