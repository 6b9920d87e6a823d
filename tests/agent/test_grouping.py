"""Control groups, version 2, in a folder that behaves like a hierarchy."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from afarm._agent.grouping import Groups, Hierarchy
from afarm._agent.slot_group import Call, SlotGroup
from afarm._monitor.cgroups import Cgroups
from afarm.resources import Resources
from tests.monitor.fake_machine import FakeMachine

MIB = 1 << 20
OWN = "/sys/fs/cgroup/user/x.scope"
FILES = {
    "cgroup.procs": "", "cgroup.subtree_control": "", "memory.max": "max\n",
    "memory.current": "0\n", "memory.events": "low 0\noom_kill 0\n",
    "memory.stat": "anon 0\nfile 0\n", "pids.max": "max\n",
}  # fmt: skip


class Fake(Hierarchy):
    """A hierarchy in a folder: plain files, and the rules of version 2.

    Attributes:
        refused: A file that cannot be written.
    """

    refused = ""

    def make(self, folder: str) -> None:
        super().make(folder)
        for name, text in FILES.items():
            Path(folder, name).write_text(text)
        handed_on = Path(folder).parent / "cgroup.subtree_control"
        Path(folder, "cgroup.controllers").write_text(handed_on.read_text().replace("+", ""))

    def remove(self, folder: str) -> None:
        below = [path for path in Path(folder).iterdir() if path.is_dir()]
        if below or Path(folder, "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "busy")
        shutil.rmtree(folder)

    def write(self, folder: str, file: str, text: str) -> None:
        path = Path(folder, file)
        if file == self.refused:
            raise PermissionError(errno.EACCES, "refused", str(path))
        if file == "cgroup.procs":
            if Path(folder, "cgroup.subtree_control").read_text():
                raise OSError(errno.EBUSY, "it hands controllers on")
            self._move(path, str(os.getpid()) if text == "0" else text)
        elif file == "cgroup.subtree_control":
            if Path(folder, "cgroup.procs").read_text():
                raise OSError(errno.EBUSY, "processes are in it")
            names = text.replace("+", "").replace("-", "")
            path.write_text(names if text.startswith("+") else "")
        else:
            path.write_text(text)

    def _move(self, to: Path, pid: str) -> None:
        root = next(each for each in to.parents if each.name == "cgroup")
        for procs in root.rglob("cgroup.procs"):
            left = [each for each in procs.read_text().split() if each != pid]
            procs.write_text("".join(f"{each}\n" for each in left))
        to.write_text(f"{to.read_text()}{pid}\n")


class Delegated:
    """A machine whose user may arrange the group that this process is in."""

    def __init__(self, root: Path, processes: str = "", *, handed_on: str = "") -> None:
        self.machine = FakeMachine(root)
        self.machine.hierarchy("/sys/fs/cgroup", "/user/x.scope")
        self.own = Path(f"{root}{OWN}")
        for name, text in FILES.items():
            self.machine.write(f"{OWN}/{name}", text)
        self.machine.write(f"{OWN}/cgroup.controllers", "cpu memory pids\n")
        self.machine.write(f"{OWN}/cgroup.procs", processes or f"{os.getpid()}\n")
        self.machine.write(f"{OWN}/cgroup.subtree_control", handed_on)
        self.fake = Fake()
        self.cgroups = Cgroups(str(root))

    def groups(self, session: str = "farm-node-7") -> Groups:
        return Groups(self.cgroups, session, self.fake)

    def there(self) -> list[str]:
        return sorted(path.name for path in self.own.iterdir() if path.is_dir())


def read(*parts: object) -> str:
    return Path(*map(str, parts)).read_text().strip()


def test_the_agent_leaves_its_group_so_that_calls_can_have_one_below(tmp_path: Path) -> None:
    place = Delegated(tmp_path)
    made = place.groups()
    assert made.controllers == ["memory", "pids"]
    assert place.there() == ["afarm-farm-node-7", "afarm-farm-node-7_agent"]
    assert read(place.own, "cgroup.procs") == ""
    assert read(place.own, "afarm-farm-node-7_agent", "cgroup.procs") == str(os.getpid())
    assert read(place.own, "afarm-farm-node-7", "cgroup.subtree_control") == "memory pids"


def test_everything_is_as_it_was_when_the_agent_ends(tmp_path: Path) -> None:
    place = Delegated(tmp_path)
    place.groups().remove()
    assert place.there() == []
    assert read(place.own, "cgroup.procs") == str(os.getpid())
    assert read(place.own, "cgroup.subtree_control") == ""


def test_a_group_that_others_are_in_is_left_alone(tmp_path: Path) -> None:
    place = Delegated(tmp_path, f"1\n{os.getpid()}\n")
    made = place.groups()
    assert made.controllers == []
    assert place.there() == []
    assert read(place.own, "cgroup.procs").split() == ["1", str(os.getpid())]


def test_nobody_has_to_move_where_controllers_are_handed_on_already(tmp_path: Path) -> None:
    place = Delegated(tmp_path, "1\n", handed_on="memory pids")
    made = place.groups()
    assert made.controllers == ["memory", "pids"]
    assert place.there() == ["afarm-farm-node-7"]
    made.remove()
    assert read(place.own, "cgroup.subtree_control") == "memory pids"


@pytest.mark.parametrize("file", ["cgroup.procs", "cgroup.subtree_control"])
def test_where_the_kernel_refuses_all_stays_as_it_was(tmp_path: Path, file: str) -> None:
    place = Delegated(tmp_path)
    place.fake.refused = file
    assert place.groups().controllers == []
    assert place.there() == []
    assert read(place.own, "cgroup.procs") == str(os.getpid())


def test_what_dead_agents_have_left_is_removed(tmp_path: Path) -> None:
    place = Delegated(tmp_path, "1\n", handed_on="memory pids")
    dead = 1 << 30
    for name in (f"afarm-farm-node-{dead}", f"afarm-farm-node-{os.getppid()}", "another-7"):
        place.fake.make(f"{place.own}/{name}")
    place.fake.make(f"{place.own}/afarm-farm-node-{dead}/slot-1")
    place.groups()
    left = {"afarm-farm-node-7", f"afarm-farm-node-{os.getppid()}", "another-7"}
    assert set(place.there()) == left


def test_all_calls_together_are_bounded_by_what_was_stated(tmp_path: Path) -> None:
    place = Delegated(tmp_path)
    made = place.groups()
    folder = place.own / "afarm-farm-node-7"
    made.bound_memory(1000 * MIB)
    first = int(read(folder, "memory.max"))
    assert 1050 * MIB <= first <= 1100 * MIB
    # They read: what the kernel keeps of it is not taken from them.
    (folder / "memory.current").write_text(f"{600 * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 0\nfile {600 * MIB}\n")
    made.follow(2)
    assert int(read(folder, "memory.max")) >= first + 600 * MIB


# --- a slot


def slot_of(place: Delegated) -> tuple[SlotGroup, Path]:
    made = place.groups()
    slot = SlotGroup(made.parents, 3, 28000, place.fake)
    return slot, place.own / "afarm-farm-node-7" / "slot-3"


def call(memory: int | None, certain: int = 0, processes: int | None = None) -> Call:
    limits = Resources(memory=memory, processes=processes)
    return Call(limits.memory, limits.processes, certain)


def test_a_supervisor_enters_a_group_of_its_slot(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    assert slot.entered
    assert read(folder, "cgroup.procs") == str(os.getpid())
    assert read(folder, "pids.max") == "21000"


def test_the_limit_comes_and_goes_with_calls_that_have_one(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))

    def limit() -> str:
        return read(folder, "memory.max").split("\n")[0]

    slot.begin([call(None)], first=True, reuse=False)
    assert limit() == "max"
    slot.begin([call(100 * MIB, processes=2)], first=True, reuse=False)
    assert 105 * MIB < int(limit()) < 600 * MIB  # with what this process shares
    assert read(folder, "pids.max") == "768"
    slot.begin([call(None)], first=True, reuse=False)
    assert limit() == "max"
    assert read(folder, "pids.max") == "21000"


def test_a_call_without_a_limit_beside_one_that_has_one_takes_it_off(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    slot.begin([call(100 * MIB)], first=True, reuse=False)
    slot.begin([call(100 * MIB), call(None)], first=False, reuse=False)
    assert read(folder, "memory.max").split("\n")[0] == "max"


def test_the_limit_rises_with_page_cache(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    slot.begin([call(100 * MIB)], first=True, reuse=False)
    before = int(read(folder, "memory.max"))
    (folder / "memory.current").write_text(f"{90 * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 0\nfile {90 * MIB}\n")
    slot.look([call(100 * MIB)])
    assert int(read(folder, "memory.max")) == before + 90 * MIB


def test_kills_are_those_of_the_slot(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    slot.begin([call(100 * MIB)], first=True, reuse=False)
    assert not slot.has_killed(-9)
    (folder / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert slot.has_killed(0)
    assert not slot.has_killed(0)


def test_without_a_limit_only_a_killed_worker_was_killed_for_memory(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    slot.begin([call(None)], first=True, reuse=False)
    (folder / "memory.events").write_text("oom_kill 1\n")
    assert not slot.has_killed(0)
    assert slot.has_killed(-9)


def test_a_group_that_vanishes_is_done_without(tmp_path: Path) -> None:
    slot, folder = slot_of(Delegated(tmp_path))
    slot.begin([call(100 * MIB)], first=True, reuse=False)
    before = read(folder, "memory.max")
    (folder / "memory.current").write_text("")
    slot.look([call(100 * MIB)])
    slot.begin([call(200 * MIB)], first=True, reuse=False)
    assert read(folder, "memory.max") == before
    assert not slot.has_killed(0)


def test_a_slot_without_groups_does_nothing() -> None:
    slot = SlotGroup([], 3, 0)
    slot.begin([call(100 * MIB)], first=True, reuse=False)
    slot.look([call(100 * MIB)])
    assert not slot.entered


def test_the_group_of_a_slot_goes_with_it(tmp_path: Path) -> None:
    place = Delegated(tmp_path)
    made = place.groups()
    SlotGroup(made.parents, 3, 0, place.fake)
    folder = place.own / "afarm-farm-node-7" / "slot-3"
    (folder / "cgroup.procs").write_text("")
    made.remove_slot(3)
    assert not folder.exists()
