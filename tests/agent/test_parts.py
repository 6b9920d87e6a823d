"""The parts of the agent that need no process: calls and groups, outbox, limits, exceptions."""

from __future__ import annotations

import os
import pickle
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._agent import exceptions
from afarm._agent.calls import Calls, Step
from afarm._agent.outbox import Outbox
from afarm._agent.output import LIVE, TAIL, Pipes
from afarm._agent.scratch import Scratch, disk_usage, remove
from afarm._monitor import limits, proc
from afarm._monitor.machine import Machine
from afarm._monitor.meter import Meter
from afarm._wire.frames import Fragment, FrameReader
from afarm._wire.messages import TO_FARM, Isolation, Pong, Run, encode
from afarm.resources import Resources, Usage


def run(invocation: int, group: int = 1, queued: bool = False) -> Run:
    return Run(
        invocation,
        1,
        group,
        queued,
        False,
        Isolation.REUSE,
        1,
        1,
        Resources(),
        0,
        b"",
        b"",
        "",
        b"",
    )


# --- calls


def test_a_queued_attempt_takes_over_the_lane_of_the_one_that_ends() -> None:
    calls = Calls()
    first = calls.add(run(1), b"")
    second = calls.add(run(2, queued=True), b"")
    assert first is not None
    assert second is not None
    assert second.step is Step.QUEUED
    assert calls.follow(first) is second
    assert second.step is Step.STAGING
    assert calls.follow(second) is None
    assert calls.stranded(1) == []
    assert len(calls) == 0


def test_a_queued_attempt_without_a_group_is_refused() -> None:
    calls = Calls()
    assert calls.add(run(1, queued=True), b"") is None
    assert len(calls) == 0


def test_what_was_taken_back_comes_first_again() -> None:
    calls = Calls()
    first = calls.add(run(1), b"")
    others = [calls.add(run(n, queued=True), b"") for n in range(2, 6)]
    assert first is not None
    group = calls.group(first)
    taken = [group.queue.popleft(), group.queue.popleft()]
    calls.requeue(taken)
    assert list(group.queue) == others


@given(st.lists(st.sampled_from(["run", "queue", "end", "drop"]), max_size=60))
def test_lanes_and_queues_are_kept_for_every_order_of_events(events: list[str]) -> None:
    calls = Calls()
    lanes: list[Any] = []
    queue: list[Any] = []
    for n, event in enumerate(events, 1):
        if event == "run":
            lanes.append(calls.add(run(n), b""))
        elif event == "queue":
            attempt = calls.add(run(n, queued=True), b"")
            assert (attempt is None) == (not lanes)
            if attempt is not None:
                queue.append(attempt)
        elif event == "end" and lanes:
            follower = calls.follow(lanes.pop(0))
            assert follower is (queue[0] if queue else None)
            if follower is not None:
                lanes.append(queue.pop(0))
            if not lanes:
                assert calls.stranded(1) == []
        elif event == "drop" and queue:
            calls.drop(queue.pop())
        assert len(calls) == len(lanes) + len(queue)


# --- outbox


def received(sock: socket.socket) -> list[Any]:
    reader = FrameReader(TO_FARM)
    found: list[Any] = []
    sock.setblocking(False)
    while True:
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            return found
        for each in reader.feed(data):
            found.append((each.subject, len(each.data)) if isinstance(each, Fragment) else each)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_control_overtakes_bulk_but_not_that_of_its_own_subject(pair) -> None:
    ours, theirs = pair
    outbox = Outbox(ours.fileno())
    outbox.open(5)
    outbox.send(encode(Pong(0)))
    outbox.send_bulk(5, b"x" * 100, 0.0)
    outbox.send_in_order(5, encode(Pong(1)))
    outbox.send_in_order(6, encode(Pong(2)))
    outbox.send(encode(Pong(3)))
    assert outbox.flush(0.0)
    found = received(theirs)
    assert found[3] == (5, 100)
    assert [frame.subject for frame in (*found[:3], found[4])] == [0, 2, 3, 1]


def test_bulk_is_bounded_by_credit_and_by_what_is_unacknowledged(pair) -> None:
    ours, _ = pair
    outbox = Outbox(ours.fileno())
    assert outbox.room(5) == 0
    outbox.open(5)
    sent = 0
    while room := outbox.room(5):
        outbox.send_bulk(5, b"x" * room, 0.0)
        sent += room
    assert sent == outbox.pacer.window
    outbox.close(5)
    assert outbox.room(5) == 0


def test_every_frame_arrives_whole_when_the_connection_is_full(pair) -> None:
    ours, theirs = pair
    outbox = Outbox(ours.fileno())
    outbox.open(5)
    for n in range(20_000):
        outbox.send(encode(Pong(n)))
        if n % 2000 == 0:
            outbox.send_bulk(5, b"x" * 10_000, 0.0)
    found: list[Any] = []
    reader = FrameReader(TO_FARM)
    done = False
    while not done:
        done = outbox.flush(0.0)
        theirs.setblocking(False)
        while True:
            try:
                data = theirs.recv(1 << 16)
            except BlockingIOError:
                break
            found += [
                (f.subject, len(f.data)) if isinstance(f, Fragment) else f.subject
                for f in reader.feed(data)
            ]
    assert [f for f in found if isinstance(f, int)] == list(range(20_000))
    assert sum(f[1] for f in found if not isinstance(f, int)) == 100_000


# --- limits


def test_each_limit_is_found_by_its_name() -> None:
    usage = Usage(wall_time=5, cpu_user=3, cpu_system=1, disk=10, processes=4)
    for name, limit in (("wall_time", 4.9), ("cpu_time", 3.9), ("disk", 9), ("processes", 3)):
        breach = limits.exceeded(Resources(**{name: limit}), usage, certain_memory=0)
        assert breach is not None
        assert breach.resource == name
        over = Resources(**{name: limit + 1})
        assert limits.exceeded(over, usage, certain_memory=0) is None
    assert limits.exceeded(Resources(memory=7), usage, certain_memory=8) is not None
    assert limits.exceeded(Resources(memory=8), usage, certain_memory=8) is None


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 34), st.floats(0, 10))
def test_looks_come_at_least_every_50_ms(limit: int, memory: int, grown: int, since: float) -> None:
    wait = limits.pause(Resources(memory=limit), 0.0, memory, grown, since)
    assert limits.FAST <= wait <= limits.SLOW
    if memory > 0.7 * limit:
        assert wait == limits.FAST


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 200))
def test_who_begins_to_grow_at_full_speed_is_looked_at_before_its_limit(
    limit: int, memory: int, threads: int
) -> None:
    resources = Resources(memory=limit)
    wait = limits.pause(resources, 0.0, memory, 0, 1.0, quiet=True, threads=threads)
    assert limits.FAST <= wait <= limits.QUIET
    assert wait == limits.FAST or memory + wait * 7.9e9 <= limit
    assert wait <= limits.SLOW or memory + wait * 7.9e9 * threads <= limit


@given(st.floats(0, 1e6), st.floats(limits.FAST, limits.QUIET))
def test_long_waits_end_at_the_same_moments_everywhere(now: float, wait: float) -> None:
    at = limits.next_look(now, wait)
    assert now < at <= now + wait + 1e-9
    if wait == limits.QUIET:
        # A sum of floats, and so a little off.
        assert at / limits.QUIET == pytest.approx(round(at / limits.QUIET), rel=1e-9)


@pytest.mark.parametrize("stated", [{"cpu_time": 9.0}, {"disk": 9}, {"processes": 9}])
def test_a_quiet_call_waits_no_longer_where_other_limits_are_stated(
    stated: dict[str, float],
) -> None:
    assert limits.pause(Resources(), 5.0, 0, 0, 1.0, quiet=True) == limits.QUIET
    assert limits.pause(Resources(**stated), 5.0, 0, 0, 1.0, quiet=True) == limits.SLOW


def test_a_wall_time_is_looked_at_when_it_is_over() -> None:
    wait = limits.pause(Resources(wall_time=1.0), 0.99, 0, 0, 0.0)
    assert 0.01 <= wait < 0.02


# --- exceptions


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


def test_chains_notes_and_groups_survive() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as exc:
        exc.add_note("a note")
        group = ExceptionGroup("many", [exc, OSError(2, "no")])
    back = pickle.loads(exceptions.dump(group))
    assert isinstance(back, ExceptionGroup)
    first, second = back.exceptions
    assert repr(first.__cause__) == "KeyError('inner')"
    assert first.__cause__ is first.__context__
    assert first.__suppress_context__
    assert first.__notes__ == ["a note"]
    assert (second.errno, second.strerror) == (2, "no")


def test_a_cycle_of_contexts_survives() -> None:
    a, b = ValueError("a"), ValueError("b")
    a.__context__, b.__context__ = b, a
    back = exceptions.load(exceptions.dump(a))
    assert back.__context__ is not None
    assert back.__context__.__context__ is back


def test_what_would_not_come_back_is_told_as_none() -> None:
    assert exceptions.dump_if_it_survives(Odd(1, 2), pickle.Pickler) is None
    assert exceptions.dump_if_it_survives(ValueError(1), pickle.Pickler) is not None


# --- output and folders


def test_output_is_bounded_but_its_end_is_kept() -> None:
    pipes = [os.pipe(), os.pipe()]
    emitted: list[tuple[int, int, int, bytes]] = []
    output = Pipes((pipes[0][0], pipes[1][0]), lambda: 1, lambda *printed: emitted.append(printed))
    written = 0
    while written < LIVE + (1 << 20):
        written += os.write(pipes[0][1], b"0123456789abcdef" * 1024)
        output.read()
    tail = output.finish(1)
    assert tail == (b"0123456789abcdef" * 1024)[:TAIL]
    assert sum(len(data) for *_, data in emitted) == LIVE
    assert sum(dropped for _, _, dropped, _ in emitted) == written - LIVE
    output.close()
    for _, writer in pipes:
        os.close(writer)


def test_output_belongs_to_the_call_that_was_present_when_it_was_read() -> None:
    pipes = [os.pipe(), os.pipe()]
    emitted: list[tuple[int, int, int, bytes]] = []
    present = 1
    output = Pipes(
        (pipes[0][0], pipes[1][0]), lambda: present, lambda *printed: emitted.append(printed)
    )
    os.write(pipes[0][1], b"one")
    output.read()
    present = 2
    os.write(pipes[1][1], b"two")
    output.read()
    assert output.finish(1) == b"one"
    assert output.finish(2) == b"two"
    assert emitted == [(1, 1, 0, b"one"), (2, 2, 0, b"two")]
    output.close()
    for _, writer in pipes:
        os.close(writer)


def test_a_folder_that_stayed_empty_serves_again(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = Scratch(str(tmp_path), "w")
    scratch.enter()
    inode = os.stat(".").st_ino
    assert scratch.leave() == 0
    scratch.enter()
    assert os.stat(".").st_ino == inode
    (tmp_path / "w" / "file").write_bytes(b"x" * 10_000)
    assert scratch.leave() >= 10_000
    scratch.enter()
    assert os.listdir() == []


def test_folders_are_removed_whatever_their_modes(tmp_path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    os.link(deep / "file", deep / "same")
    assert 0 < disk_usage(str(tmp_path / "a")) <= 8192
    deep.chmod(0)
    (tmp_path / "a" / "b").chmod(0)
    remove(str(tmp_path / "a"))
    assert os.listdir(tmp_path) == []


# --- the machine and this process


def test_the_machine_has_what_the_kernel_says() -> None:
    psutil = pytest.importorskip("psutil")
    here = Machine()
    memory = here.memory()
    assert memory is not None
    assert 1 << 28 < memory.amount <= psutil.virtual_memory().total
    assert 0 < here.cores().amount <= psutil.cpu_count()
    assert 0 < here.available() <= psutil.virtual_memory().total
    capacity, sources = here.capacity("/", Resources(cores=3.5))
    assert capacity.cores == 3.5
    assert capacity.memory == memory.amount
    assert sources == {"cores": "stated", "memory": memory.source}


def test_status_of_a_process_agrees_with_psutil() -> None:
    psutil = pytest.importorskip("psutil")
    status = proc.read_status(os.getpid())
    stat = proc.read_stat(os.getpid())
    assert status is not None
    assert stat is not None
    assert abs(status.resident - psutil.Process().memory_info().rss) < 8 << 20
    assert status.high_water >= status.resident - (1 << 20)
    assert stat.parent == os.getppid()


def test_the_meter_finds_a_peak_that_is_gone_again() -> None:
    opened: list[int] = []

    def keep(descriptor: int) -> int:
        opened.append(descriptor)
        return descriptor

    meter = Meter(keep)
    try:
        meter.begin(again=True)
        size = len(bytearray(b"x") * (80 << 20))
        found = meter.finish(0.1).usage
        assert abs(found.memory_low - size) < 4 << 20
        assert found.memory_low <= found.memory <= found.memory_resident
        meter.begin(again=True)
        assert meter.finish(0.1).usage.memory_low < 8 << 20
    finally:
        for descriptor in opened:
            os.close(descriptor)
