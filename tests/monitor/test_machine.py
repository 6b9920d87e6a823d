"""What a process may use of a machine, told from files that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afarm._monitor.cgroups import Cgroups, parse_cpus
from afarm.resources import Resources
from tests.monitor.fake_machine import GIB, FakeMachine

UNLIMITED = "9223372036854771712\n"


@pytest.fixture
def fake(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_without_limits_it_is_the_machine(fake: FakeMachine) -> None:
    machine = fake.machine()
    assert machine.cores() == (8, "the machine")
    assert machine.memory() == (64 * GIB, "the machine")
    assert machine.available() == 32 * GIB


def test_affinity_counts_processors(fake: FakeMachine) -> None:
    assert fake.machine(affinity={1, 5}).cores() == (2, "affinity")


def test_a_machine_that_tells_nothing_is_not_limited(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path)
    for path in ("meminfo", "stat", "self/mountinfo"):
        (tmp_path / "proc" / path).unlink()
    machine = fake.machine(affinity={0, 1})
    assert machine.cores() == (2, "affinity")
    assert machine.memory() is None
    assert machine.cores_in_use() == 0
    assert machine.memory_pressure() == -1
    assert machine.capacity("/nowhere/at/all", Resources()).resources.disk is None


def test_every_group_above_limits_memory(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/user.slice/user-1000.slice/session-3.scope")
    above = "/sys/fs/cgroup/user.slice"
    fake.write(f"{above}/user-1000.slice/session-3.scope/memory.max", "max\n")
    fake.write(f"{above}/user-1000.slice/memory.max", f"{8 * GIB}\n")
    assert fake.machine().memory() == (8 * GIB, "memory.max of cgroup /user.slice/user-1000.slice")
    fake.write(f"{above}/memory.high", f"{4 * GIB}\n")
    assert fake.machine().memory() == (4 * GIB, "memory.high of cgroup /user.slice")


def test_every_group_above_limits_processor_time(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/a/b")
    fake.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    fake.write("/sys/fs/cgroup/a/cpu.max", "250000 100000\n")
    assert fake.machine().cores() == (2.5, "cpu.max of cgroup /a")
    fake.write("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n")
    assert fake.machine().cores() == (0.5, "cpu.max of cgroup /a/b")


def test_version_1_limits_by_each_controller(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup/memory", "/job", controllers="memory")
    fake.hierarchy("/sys/fs/cgroup/cpu,cpuacct", "/job/step", controllers="cpu,cpuacct")
    fake.hierarchy("/sys/fs/cgroup/cpuset", "/job", controllers="cpuset")
    fake.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{6 * GIB}\n")
    fake.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED)
    fake.write("/sys/fs/cgroup/cpu,cpuacct/job/step/cpu.cfs_quota_us", "-1\n")
    fake.write("/sys/fs/cgroup/cpu,cpuacct/job/step/cpu.cfs_period_us", "100000\n")
    fake.write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n")
    fake.write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    machine = fake.machine()
    assert machine.memory() == (6 * GIB, "memory.limit_in_bytes of cgroup /job")
    assert machine.cores() == (3, "cpu.cfs_quota_us of cgroup /job")
    fake.write("/sys/fs/cgroup/cpuset/job/cpuset.cpus", "2,6-7\n")
    assert fake.machine().cores() == (3, "cpuset.cpus of cgroup /job")


def test_version_1_tells_of_groups_above_that_a_container_does_not_see(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup/memory", "/docker/c1", controllers="memory", root="/docker/c1")
    fake.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED)
    fake.write(
        "/sys/fs/cgroup/memory/memory.stat", f"cache 5\nhierarchical_memory_limit {3 * GIB}\n"
    )
    memory = fake.machine().memory()
    assert memory == (3 * GIB, "hierarchical_memory_limit of cgroup /docker/c1")


def test_version_2_tells_of_cpusets_above(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/")
    fake.write("/sys/fs/cgroup/cpuset.cpus.effective", "0-2\n")
    assert fake.machine().cores() == (3, "cpuset.cpus.effective of cgroup /")


def test_a_cpuset_of_other_processors_than_the_affinity_is_not_about_us(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/")
    fake.write("/sys/fs/cgroup/cpuset.cpus.effective", "6-7\n")
    assert fake.machine(affinity={0, 1, 2}).cores() == (3, "affinity")


def test_both_versions_together_limit_together(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup/memory", "/a", controllers="memory")
    fake.hierarchy("/sys/fs/cgroup/unified", "/b")
    fake.write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{6 * GIB}\n")
    fake.write("/sys/fs/cgroup/unified/b/cpu.max", "100000 100000\n")
    machine = fake.machine()
    assert machine.memory() == (6 * GIB, "memory.limit_in_bytes of cgroup /a")
    assert machine.cores() == (1, "cpu.max of cgroup /b")


def test_a_hierarchy_may_be_mounted_anywhere(fake: FakeMachine) -> None:
    fake.hierarchy("/mnt/my\\040groups", "/pod/c1/inner", root="/pod/c1")
    fake.write("/mnt/my groups/inner/memory.max", f"{GIB}\n")
    assert fake.machine().memory() == (GIB, "memory.max of cgroup /pod/c1/inner")


def test_what_is_mounted_of_another_group_is_not_about_us(fake: FakeMachine) -> None:
    fake.hierarchy("/var/lib/other", "/pod/c1", root="/pod/c2")
    fake.write("/var/lib/other/memory.max", f"{GIB}\n")
    assert fake.machine().memory() == (64 * GIB, "the machine")


@pytest.mark.parametrize(
    ("group", "root", "folders"),
    [
        ("/", "/", ["/m"]),
        ("/a", "/", ["/m/a", "/m"]),
        ("/a/b", "/a", ["/m/b", "/m"]),
        ("/ab", "/a", []),
        # Relative to a namespace that this process is outside of.
        ("/../x", "/", []),
        ("/../x", "/..", ["/m/x", "/m"]),
        ("/../x", "/../..", ["/m"]),
        ("/", "/..", ["/m"]),
        ("/../../x", "/..", []),
    ],
)
def test_a_group_is_found_below_what_is_mounted(
    fake: FakeMachine, group: str, root: str, folders: list[str]
) -> None:
    fake.hierarchy("/m", group, root=root)
    found = [each.folder for each in Cgroups(str(fake.root)).of("memory")]
    assert found == [str(fake.root) + folder for folder in folders]


@pytest.mark.parametrize("garbage", ["", "\n", "maximum", "-5", "1e3", "12 x", "\x00\xff", "²"])
def test_garbage_limits_nothing(fake: FakeMachine, garbage: str) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/a")
    fake.hierarchy("/old", "/a", controllers="memory,cpu,cpuset,cpuacct")
    fake.add("/proc/self/cgroup", garbage)
    fake.add("/proc/self/mountinfo", garbage)
    for folder in ("/sys/fs/cgroup/a/", "/old/a/"):
        for file in (
            "memory.max", "memory.high", "memory.limit_in_bytes", "memory.stat", "memory.current",
            "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.stat", "memory.pressure",
            "cpuset.cpus", "cpuset.cpus.effective",
        ):  # fmt: skip
            fake.write(folder + file, garbage)
    fake.add("/proc/meminfo", garbage)
    fake.add("/proc/stat", garbage)
    machine = fake.machine()
    assert machine.cores() == (8, "the machine")
    assert machine.memory() == (64 * GIB, "the machine")
    assert machine.available() == 32 * GIB
    assert machine.cores_in_use() == 0


limits = st.one_of(st.none(), st.integers(1, 80).map(lambda gib: gib * GIB))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.tuples(limits, limits), min_size=1, max_size=5), two=st.booleans())
def test_memory_is_the_least_of_all_limits(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[int | None, int | None]], two: bool
) -> None:
    fake = FakeMachine(tmp_path_factory.mktemp("root"))
    place = "/sys/fs/cgroup"
    fake.hierarchy(
        place, "/g" * (len(groups) - 1) or "/", controllers="" if two else "memory"
    )  # fmt: skip
    names = ("memory.max", "memory.high") if two else ("memory.limit_in_bytes", "memory.nothing")
    counted = [64 * GIB]
    for depth, pair in enumerate(groups):
        for name, limit in zip(names, pair, strict=True):
            none = "max\n" if two else UNLIMITED
            fake.write(f"{place}{'/g' * depth}/{name}", none if limit is None else f"{limit}\n")
            if limit is not None and name != "memory.nothing":
                counted.append(limit)
    memory = fake.machine().memory()
    assert memory is not None
    assert memory.amount == min(counted)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_lists_of_processors_are_read_as_the_kernel_writes_them(cpus: set[int]) -> None:
    ordered = sorted(cpus)
    starts = [cpu for cpu in ordered if cpu - 1 not in cpus]
    ends = [cpu for cpu in ordered if cpu + 1 not in cpus]
    text = ",".join(
        f"{a}-{b}" if a != b else f"{a}" for a, b in zip(starts, ends, strict=True)
    )  # fmt: skip
    assert parse_cpus(text + "\n") == cpus


# --- what is left, and load


def test_available_is_what_the_tightest_group_leaves(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup", "/a/b")
    fake.write("/sys/fs/cgroup/a/memory.max", f"{8 * GIB}\n")
    fake.write("/sys/fs/cgroup/a/memory.current", f"{7 * GIB}\n")
    fake.write("/sys/fs/cgroup/a/memory.stat", f"anon {5 * GIB}\ninactive_file {2 * GIB}\n")
    assert fake.machine().available() == 3 * GIB
    fake.write("/sys/fs/cgroup/a/b/memory.high", f"{4 * GIB}\n")
    fake.write("/sys/fs/cgroup/a/b/memory.current", f"{5 * GIB}\n")
    assert fake.machine().available() == 0


def test_of_version_1_the_cache_of_groups_below_counts_too(fake: FakeMachine) -> None:
    fake.hierarchy("/sys/fs/cgroup/memory", "/a", controllers="memory")
    fake.write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{8 * GIB}\n")
    fake.write("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", f"{8 * GIB}\n")
    fake.write(
        "/sys/fs/cgroup/memory/a/memory.stat", f"inactive_file 0\ntotal_inactive_file {GIB}\n"
    )
    assert fake.machine().available() == GIB


def test_load_is_that_of_the_processors_we_may_use(fake: FakeMachine) -> None:
    machine = fake.machine(affinity={0, 1, 2})
    assert machine.cores_in_use() == 0  # since when?
    fake.processors({0: 100, 1: 50, 6: 100, 7: 100}, passed=100)
    assert machine.cores_in_use() == pytest.approx(1.5)
    assert machine.cores_in_use() == 0  # no time has passed


def test_load_under_a_quota_is_what_was_used_of_it(
    fake: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    fake.hierarchy("/sys/fs/cgroup", "/a")
    fake.write("/sys/fs/cgroup/a/cpu.max", "200000 100000\n")
    fake.write("/sys/fs/cgroup/a/cpu.stat", "usage_usec 5000000\nuser_usec 1\n")
    machine = fake.machine()
    assert machine.cores_in_use() == 0
    clock[0] += 2
    fake.write("/sys/fs/cgroup/a/cpu.stat", "usage_usec 8000000\nuser_usec 1\n")
    fake.processors(dict.fromkeys(range(8), 200), passed=200)  # others, beyond our quota
    assert machine.cores_in_use() == pytest.approx(1.5)


def test_version_1_counts_what_was_used_of_a_quota_elsewhere(
    fake: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    fake.hierarchy("/cpu", "/a", controllers="cpu")
    fake.hierarchy("/acct", "/a", controllers="cpuacct")
    fake.write("/cpu/a/cpu.cfs_quota_us", "200000\n")
    fake.write("/cpu/a/cpu.cfs_period_us", "100000\n")
    fake.write("/acct/a/cpuacct.usage", "0\n")
    machine = fake.machine()
    assert machine.cores_in_use() == 0
    clock[0] += 4
    fake.write("/acct/a/cpuacct.usage", "2000000000\n")
    assert machine.cores_in_use() == pytest.approx(0.5)


def test_pressure_is_that_of_the_group_that_limits_us(fake: FakeMachine) -> None:
    fake.write("/proc/pressure/memory", "some avg10=40.00 avg60=0 avg300=0 total=1\nfull x\n")
    fake.hierarchy("/sys/fs/cgroup", "/a")
    fake.write("/sys/fs/cgroup/a/memory.pressure", "some avg10=2.50 avg60=0 avg300=0 total=1\n")
    assert fake.machine().memory_pressure() == pytest.approx(0.4)
    fake.write("/sys/fs/cgroup/a/memory.max", f"{GIB}\n")
    assert fake.machine().memory_pressure() == pytest.approx(0.025)


# --- all of it


def test_what_was_stated_is_taken_as_said(fake: FakeMachine) -> None:
    capacity = fake.machine(affinity={0}).capacity("/", Resources(memory=GIB))
    assert capacity.resources.memory == GIB
    assert capacity.resources.cores == 1
    assert capacity.resources.gpus == 0
    assert capacity.sources == {"cores": "affinity", "memory": "stated"}


def test_limits_of_a_process_are_not_those_of_a_node(fake: FakeMachine) -> None:
    ulimits = {"RLIMIT_AS": 4 * GIB, "RLIMIT_RSS": 2 * GIB}
    assert fake.machine(process_limits=ulimits).memory() == (64 * GIB, "the machine")
    slurm = {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "node7"}
    assert fake.machine(process_limits=ulimits, environ=slurm).memory() == (
        64 * GIB, "the machine",
    )  # fmt: skip
    pbs = {"PBS_JOBID": "1.server"}
    assert fake.machine(process_limits=ulimits, environ=pbs).memory() == (2 * GIB, "RLIMIT_RSS")
