"""What the limits of control groups of our own are to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._monitor import groups
from afarm._monitor.cgroups import Cgroups
from afarm._monitor.groups import Ceiling, Parent
from tests.monitor.fake_machine import FakeMachine

MIB = 1 << 20
SLACK = groups._SLACK + groups._OF_PROCESSOR  # of one processor


def armed(hard: int, held: int = 0, usage: int = 0) -> Ceiling:
    """Return what bounds a call in a slot that held so much when it began."""
    ceiling = Ceiling(1)
    ceiling.hard, ceiling.held = hard, held
    assert ceiling.follow(usage, held, 0) is not None
    return ceiling


def test_the_limit_is_a_little_above_what_the_call_may_have() -> None:
    ceiling = armed(1000 * MIB, held=30 * MIB, usage=30 * MIB)
    assert ceiling.limit == 1050 * MIB + 30 * MIB + SLACK


def test_what_a_call_reads_again_and_again_is_not_taken_from_it_for_long() -> None:
    file, ceiling = 400 * MIB, armed(160 * MIB)
    cache = taken = writes = 0
    for _ in range(20):
        # It reads all of the file; the kernel takes back what is above the limit.
        before, cache = cache, min(file, ceiling.limit - 10 * MIB)
        taken = file - cache
        if ceiling.is_stale(cache + 10 * MIB):
            writes += ceiling.follow(cache + 10 * MIB, 10 * MIB, 10 * MIB) is not None
        if before == cache:
            break
    assert taken == 0
    assert writes <= 3
    assert not ceiling.is_stale(file + 10 * MIB)


def test_room_for_cache_goes_with_the_cache() -> None:
    ceiling = armed(160 * MIB)
    ceiling.follow(400 * MIB, 0, 0)
    high = ceiling.limit
    assert ceiling.is_stale(0)
    assert ceiling.follow(0, 0, 0) == high - 400 * MIB


def test_rewritten_pages_of_the_template_are_not_held_against_a_call() -> None:
    ceiling = armed(100 * MIB)
    # All of it is anonymous, but the watch is certain of half of it only.
    limit = ceiling.follow(180 * MIB, 180 * MIB, 90 * MIB)
    assert limit is not None
    assert limit - 180 * MIB >= (105 - 90) * MIB


def test_what_changes_by_little_is_not_written() -> None:
    ceiling = armed(1000 * MIB)
    assert not ceiling.is_stale(20 * MIB)
    assert ceiling.follow(20 * MIB, 0, 0) is None


@given(
    st.integers(1, 1 << 40), st.integers(0, 1 << 40),
    st.lists(st.tuples(*3 * [st.integers(0, 1 << 40)]), max_size=8),
)  # fmt: skip
def test_no_limit_lies_below_what_is_there_nor_takes_room_from_a_call(
    hard: int, held: int, looks: list[tuple[int, int, int]]
) -> None:
    ceiling = Ceiling(1)
    ceiling.hard, ceiling.held = hard, held
    for usage, anonymous, certain in looks:
        limit = ceiling.follow(usage, min(anonymous, usage), certain)
        if limit is not None:
            assert limit > usage
            assert limit >= usage - certain + hard
        else:
            worth = max(4 * MIB, hard // 32)
            assert ceiling.limit > usage - certain + hard - worth or certain > hard


def test_all_calls_may_have_the_capacity_and_what_they_have_read() -> None:
    assert groups.ceiling_of_all(1000 * MIB, 300 * MIB, 0) >= 1300 * MIB
    more = groups.ceiling_of_all(1000 * MIB, 300 * MIB, 8)
    assert more > groups.ceiling_of_all(1000 * MIB, 300 * MIB, 4)


# --- processes and threads


def test_calls_leave_processes_to_others_and_slots_to_each_other(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.write("/proc/sys/kernel/pid_max", "4194304\n")
    machine.write("/proc/sys/kernel/threads-max", "100000\n")
    machine.hierarchy("/sys/fs/cgroup", "/a/b")
    machine.write("/sys/fs/cgroup/a/pids.max", "32000\n")
    machine.write("/sys/fs/cgroup/a/b/pids.max", "max\n")
    most = groups.most_threads(Cgroups(str(tmp_path)), str(tmp_path))
    assert most == 28000
    assert groups.threads_of_slot(most) == 21000
    assert groups.threads_of_slot(most, [4]) == 5 * 256
    assert groups.threads_of_slot(most, [4, None]) == 21000
    assert groups.threads_of_slot(most, [1000]) == 21000


@pytest.mark.parametrize("most", ["512", "max"])
def test_who_may_have_few_processes_or_any_number_is_left_alone(tmp_path: Path, most: str) -> None:
    machine = FakeMachine(tmp_path)
    machine.hierarchy("/sys/fs/cgroup", "/a")
    machine.write("/sys/fs/cgroup/a/pids.max", most)
    assert groups.most_threads(Cgroups(str(tmp_path)), str(tmp_path)) == 0
    assert groups.threads_of_slot(0, [4]) == 0


# --- where


def test_each_controller_is_found_in_its_own_version(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.hierarchy("/sys/fs/cgroup/memory", "/x", controllers="memory")
    machine.hierarchy("/sys/fs/cgroup/unified", "/y")
    machine.write("/sys/fs/cgroup/unified/y/cgroup.controllers", "cpu pids\n")
    assert groups.own(Cgroups(str(tmp_path))) == [
        Parent("memory", 1, f"{tmp_path}/sys/fs/cgroup/memory/x"),
        Parent("pids", 2, f"{tmp_path}/sys/fs/cgroup/unified/y"),
    ]


def test_without_controllers_there_is_no_group_to_be_had(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.hierarchy("/sys/fs/cgroup/unified", "/y")
    machine.write("/sys/fs/cgroup/unified/y/cgroup.controllers", "hugetlb\n")
    assert groups.own(Cgroups(str(tmp_path))) == []


def test_a_name_tells_whose_group_it_is() -> None:
    made = groups.name("farm-7-node-1234")
    assert groups.agent_of(made) == groups.agent_of(made + groups.AGENT) == 1234
    assert groups.agent_of(groups.name("farm-7-node-1234.2")) == 1234
    assert groups.agent_of("docker-1234") is None
    assert groups.agent_of("afarm-x") is None


def test_a_number_is_found_by_its_whole_name() -> None:
    text = b"oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"
    assert groups.field(text, b"oom_kill") == 12
    assert groups.field(b"low 0\noom 1\n", b"oom_kill") == 0
