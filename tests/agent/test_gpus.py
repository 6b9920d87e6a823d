"""Which GPUs a node has, and which of them a call sees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._agent.gpus import Devices, Found, find_gpus, hiding, offered, parse_visible
from afarm._wire import messages as m
from afarm.resources import Resources
from tests.agent.driver import Driver

ONE_GPU = Resources(gpus=1)


# --- which there are


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("", ()),
        ("0", ("0",)),
        ("2, 1", ("2", "1")),
        ("0,2,-1,1", ("0", "2")),
        ("NoDevFiles", ()),
        ("1,0,1", ()),
        ("GPU-8932f937,MIG-GPU-1/2/3", ("GPU-8932f937", "MIG-GPU-1/2/3")),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(text: str, devices: tuple[str, ...]) -> None:
    assert parse_visible(text) == devices


class FakeLibrary:
    """NVML of a node with three GPUs."""

    count = 3
    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_we_are_shown_counts_before_what_there_is(tmp_path: Path) -> None:
    library = FakeLibrary()
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "5"}, open_library=lambda: library) == Found(
        ("5",), "CUDA_VISIBLE_DEVICES"
    )  # type: ignore[arg-type]
    assert find_gpus({}, open_library=lambda: library) == Found(("0", "1", "2"), "NVML")  # type: ignore[arg-type,return-value]
    assert library.closed


def test_without_the_library_the_driver_is_asked(tmp_path: Path) -> None:
    assert find_gpus({}, open_library=lambda: None, root=str(tmp_path)) == Found((), "")
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "proc/driver/nvidia/gpus" / bus).mkdir(parents=True)
    found = find_gpus({}, open_library=lambda: None, root=str(tmp_path))
    assert found == Found(("0", "1"), "the driver")


@pytest.mark.parametrize(
    ("found", "stated", "devices"),
    [
        (("0", "1"), None, ("0", "1")),
        (("0", "1"), 1, ("0",)),
        (("0", "1"), 0, ()),
        ((), 2, ("0", "1")),
        (("1", "GPU-a"), 4, ("1", "GPU-a", "0", "2")),
    ],
)
def test_a_stated_number_is_taken_as_said(
    found: tuple[str, ...], stated: int | None, devices: tuple[str, ...]
) -> None:
    assert offered(Found(found, "NVML"), stated) == devices


def test_gpus_are_hidden_where_there_are_some_and_nowhere_else() -> None:
    two, none = Found(("0", "1"), "NVML"), Found((), "")
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    by_bus = {**hidden, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert hiding({}, none, ()) == {}
    assert hiding({}, none, ("0",)) == by_bus
    assert hiding({}, two, ()) == by_bus  # gpus=0 was stated
    # Numbers that somebody wrote mean what they meant to them.
    assert hiding({"CUDA_VISIBLE_DEVICES": "1"}, two, ("1",)) == hidden


# --- which are free


@given(names=st.lists(st.text(min_size=1), unique=True, max_size=6), data=st.data())
def test_no_device_is_anyones_twice_and_the_first_free_ones_are_given(
    names: list[str], data: st.DataObject
) -> None:
    devices = Devices(names)
    owned: list[tuple[str, ...]] = []
    for _ in range(data.draw(st.integers(0, 20))):
        if owned and data.draw(st.booleans()):
            devices.give_back(owned.pop(data.draw(st.integers(0, len(owned) - 1))))
            continue
        count = data.draw(st.integers(0, 7))
        free = [name for name in names if not any(name in each for each in owned)]
        taken = devices.take(count)
        if count > len(free):
            assert taken is None
        else:
            assert taken == tuple(free[:count])
            owned.append(taken)


def test_a_device_that_was_not_taken_cannot_be_given_back() -> None:
    devices = Devices(("0", "1"))
    assert devices.take(1) == ("0",)
    with pytest.raises(ValueError, match="device 1 was not taken"):
        devices.give_back(("1",))
    with pytest.raises(ValueError, match="device 7 was not taken"):
        devices.give_back(("7",))


# --- what calls see


def make_look(spoil: bool = False) -> Callable[[], tuple[str | None, int]]:
    """Return a function that travels by value: the node cannot import this module."""

    def look() -> tuple[str | None, int]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if spoil:
            os.environ["CUDA_VISIBLE_DEVICES"] = "7"
        return visible, os.getpid()

    return look


look, look_and_spoil = make_look(), make_look(spoil=True)


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@contextmanager
def node(scratch: Path, gpus: int | None, **environ: str) -> Iterator[Driver]:
    with closing(Driver(scratch, capacity=Resources(gpus=gpus), environ=environ)) as driver:
        driver.in_place()
        yield driver


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Driver]:
    """A node with one GPU."""
    with node(tmp_path, 1) as driver:
        yield driver


def test_calls_see_their_gpus_and_those_without_see_none(tmp_path: Path) -> None:
    with node(tmp_path, None, CUDA_VISIBLE_DEVICES="4,GPU-b,6") as driver:
        hello = driver.wait_for(m.Hello)
        assert hello.capacity.gpus == 3
        assert driver.call(look, limits=Resources(gpus=2)).value[0] == "4,GPU-b"
        assert driver.call(look, limits=ONE_GPU).value[0] == "4"
        assert driver.call(look, limits=Resources(gpus=0)).value[0] == ""
        assert driver.call(look).value[0] == ""


def test_a_node_without_gpus_hides_none(tmp_path: Path) -> None:
    with node(tmp_path, None) as driver:
        assert driver.wait_for(m.Hello).capacity.gpus == 0
        assert driver.call(look).value[0] is None


@pytest.mark.parametrize("reuse", [False, True])
def test_calls_at_once_see_different_gpus(tmp_path: Path, reuse: bool) -> None:
    def meet(mine: str, other: str) -> str:
        Path(mine).touch()
        while not Path(other).exists():
            os.sched_yield()
        return os.environ["CUDA_VISIBLE_DEVICES"]

    with node(tmp_path / "node", 2) as driver:
        a, b = str(tmp_path / "a"), str(tmp_path / "b")
        first = driver.run(meet, a, b, limits=ONE_GPU, reuse=reuse)
        second = driver.run(meet, b, a, limits=ONE_GPU, reuse=reuse)
        assert {driver.result(first).value, driver.result(second).value} == {"0", "1"}


def test_one_process_serves_calls_that_follow_each_other_on_a_gpu(one: Driver) -> None:
    first = one.run(look_and_spoil, group=5, limits=ONE_GPU, reuse=True)
    rest = [
        one.run(look_and_spoil, group=5, limits=ONE_GPU, reuse=True, queued=True) for _ in range(9)
    ]
    found = {one.result(each).value for each in (first, *rest)}
    assert len(found) == 1
    visible, pid = found.pop()
    assert visible == "0"
    # The last one ended, and with it what it may hold of the GPU's memory.
    one.wait(lambda: one.call(look).value and not exists(pid))


def test_a_process_that_had_a_gpu_is_gone_before_another_has_it(one: Driver) -> None:
    visible, pid = one.call(look, limits=ONE_GPU, reuse=True).value
    assert visible == "0"

    def check(earlier: int) -> tuple[str, bool]:
        return os.environ["CUDA_VISIBLE_DEVICES"], os.path.exists(f"/proc/{earlier}")

    assert one.call(check, pid, limits=ONE_GPU, reuse=True, group=2).value == ("0", False)


def test_a_process_that_saw_no_gpu_is_given_none(one: Driver) -> None:
    visible, pid = one.call(look, reuse=True).value
    assert visible == ""
    visible, other = one.call(look, limits=ONE_GPU, reuse=True, group=2).value
    assert visible == "0"
    assert other != pid
    assert one.call(look, reuse=True, group=3).value == ("", pid)


def test_a_gpu_is_not_free_while_a_result_is_handed_over(one: Driver) -> None:
    one.auto_credit = False

    def produce() -> bytes:
        return bytes(32 << 20)

    first = one.run(produce, limits=ONE_GPU)
    one.wait(lambda: any(each.invocation == first for each in one.of(m.Ended)))
    second = one.run(look, limits=ONE_GPU, group=2)
    assert one.call(look, group=3).value[0] == ""
    assert second not in one.results
    one.auto_credit = True
    one.send(m.Credit(first, 32 << 20))
    assert len(one.result(first).value) == 32 << 20
    assert one.result(second).value[0] == "0"


def test_a_call_that_waits_for_a_gpu_can_be_killed(one: Driver) -> None:
    one.auto_credit = False
    first = one.run(lambda: bytes(32 << 20), limits=ONE_GPU)
    one.wait(lambda: any(each.invocation == first for each in one.of(m.Ended)))
    second = one.run(look, limits=ONE_GPU, group=2)
    one.send(m.Kill(second, 1, m.KillReason.CANCELLED))
    assert one.result(second).outcome is m.Outcome.KILLED
    one.auto_credit = True
    one.send(m.Credit(first, 32 << 20))
    one.result(first)
    assert one.call(look, limits=ONE_GPU, group=3).value[0] == "0"


@pytest.mark.parametrize("reuse", [False, True])
def test_a_gpu_is_free_again_after_a_crash(one: Driver, reuse: bool) -> None:
    def crash() -> None:
        os.kill(os.getpid(), 9)

    for group in range(1, 4):
        crashed = one.call(crash, limits=ONE_GPU, reuse=reuse, group=group)
        assert crashed.outcome is m.Outcome.CRASHED
    assert one.call(look, limits=ONE_GPU, reuse=reuse, group=9).value[0] == "0"


def test_a_gpu_is_free_again_when_a_supervisor_dies(one: Driver) -> None:
    def kill_supervisor() -> None:
        os.kill(os.getppid(), 9)
        signal.pause()  # until this process is ended as well

    assert one.call(kill_supervisor, limits=ONE_GPU).outcome is m.Outcome.CRASHED
    assert one.call(look, limits=ONE_GPU, group=2).value[0] == "0"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_what_uses_cuda_when_it_is_imported_is_imported_by_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libcuda.so.1"
    (tmp_path / "cuda.c").write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"], check=True)
    (tmp_path / "hasty.py").write_text(
        "import ctypes, os\n"
        f"ctypes.CDLL({str(library)!r}).cuInit(0)\n"
        "FOUND = os.environ['CUDA_VISIBLE_DEVICES']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def found() -> str:
        import hasty  # type: ignore[import-not-found]

        return str(hasty.FOUND)

    with closing(Driver(tmp_path / "node", capacity=ONE_GPU)) as driver:
        driver.in_place(["hasty"])
        assert driver.call(found, limits=ONE_GPU).value == "0"
        [state] = driver.of(m.EnvironmentState)
        assert "uses CUDA" in state.notes
