"""The storekeeper over its pipes, and a real environment from packing to import."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afarm._agent.build import platform_of_interpreter, remove_tree
from afarm._agent.internal import Arriving
from afarm._agent.store import environment_path
from afarm._wire import messages as wire
from afarm._wire.chunks import CHUNK, HEADER, header
from afarm._wire.frames import BULK, BULK_LIMIT, FrameReader, pack_header
from afarm.environments import Environment, analyze
from tests.agent.made_up_bundles import PACKAGE, bundle, run
from tests.environments.made_up import Project

TIMEOUT = 60.0
HERE = Path(__file__).parents[2]

Answer = wire.Stored | wire.Lost | wire.EnvironmentState | wire.Credit


class Keeper:
    """A storekeeper in a process of its own, as the agent starts one."""

    def __init__(self, root: str, *arguments: str) -> None:
        program = "from afarm._agent.storekeeper import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "storekeeper", root, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=HERE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin, self.stdout, self.stderr = (
            self.process.stdin,
            self.process.stdout,
            self.process.stderr,
        )
        self._reader = FrameReader(wire.TO_FARM | {Arriving.kind})
        self.answers: list[Any] = []

    def send(self, *messages: Any) -> None:
        self.write(b"".join(wire.encode(message) for message in messages))

    def write(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def bulk(self, blob: int, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self.raw(blob, header(len(piece), len(piece)) + piece)

    def raw(self, blob: int, data: bytes) -> None:
        for at in range(0, len(data), BULK_LIMIT):
            piece = data[at : at + BULK_LIMIT]
            self.write(pack_header(BULK, blob, len(piece)) + piece)

    def bundle(self, blob: int, digest: str, data: bytes) -> None:
        self.send(wire.Blob(blob, len(data), digest, "bundle", "a bundle"))
        self.bulk(blob, data)

    def wait_answer(self, wanted: Callable[[Any], bool]) -> Any:
        """Return the first answer like this, of those that came and those that come."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            for answer in self.answers:
                if wanted(answer):
                    return answer
            ready, _, _ = select.select([self.stdout], [], [], deadline - time.monotonic())
            assert ready, f"no such answer among {self.answers}"
            data = os.read(self.stdout.fileno(), 1 << 16)
            assert data, f"it ended: {self.stderr.read().decode()}"
            for frame in self._reader.feed(data):
                self.answers.append(wire.decode(frame))  # type: ignore[arg-type]

    def wait_state(self, environment: int) -> wire.EnvironmentState:
        state: wire.EnvironmentState = self.wait_answer(
            lambda answer: (
                isinstance(answer, wire.EnvironmentState) and answer.environment == environment
            )
        )
        return state

    def end(self) -> tuple[int, str]:
        """Close its input; return its exit status and what it said."""
        self.stdin.close()
        said = self.stderr.read().decode()
        return self.process.wait(TIMEOUT), said

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT)
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "cache"
    yield str(folder)
    remove_tree(str(folder))


@pytest.fixture
def start(root: str) -> Iterator[Callable[..., Keeper]]:
    keepers: list[Keeper] = []

    def start(*arguments: str) -> Keeper:
        keepers.append(Keeper(root, *arguments))
        return keepers[-1]

    yield start
    for keeper in keepers:
        keeper.close()


def wire_size(size: int) -> int:
    """Return how many bytes content takes on the wire, as it is."""
    return size + -(-size // CHUNK) * HEADER.size


def description(*digests: str, **more: object) -> str:
    bundles = [
        {"blob": blob, "digest": digest, "kind": "source", "name": "x", "size": 1}
        for blob, digest in enumerate(digests, 1)
    ]
    name = hashlib.sha256("".join(digests).encode()).hexdigest()
    return json.dumps(
        {"in_place": False, "bundles": bundles, "digest": name, "preload": [], **more}
    )


def by_value(source: str) -> Any:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


@pytest.mark.slow
def test_what_a_function_needs_is_packed_sent_and_imported_there(
    root: str, start: Callable[..., Keeper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    monkeypatch.syspath_prepend(str(project.folder))
    project.write(
        {
            "mypkg/__init__.py": "from .inner import total\n",
            "mypkg/inner.py": "import numpy as np\ndef total(): return int(np.ones(5).sum())\n",
        }
    )
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "numpy.py").write_text("raise SystemExit('poisoned')")
    function = by_value("def f():\n  import mypkg\n  return mypkg.total()")
    environment = Environment.shipped(analyze(function), cache=tmp_path / "bundles")
    numbers = {part.digest: blob for blob, part in enumerate(environment.bundles, 1)}

    keeper = start()
    keeper.send(wire.Environment(4, environment.describe(numbers)))
    for part in environment.bundles:
        lacking = keeper.wait_answer(
            lambda answer, part=part: getattr(answer, "blob", 0) == numbers[part.digest]
        )
        assert lacking == wire.Lost(numbers[part.digest], "absent")
        keeper.bundle(numbers[part.digest], part.digest, part.path.read_bytes())
    assert keeper.wait_state(4) == wire.EnvironmentState(4, "", "")

    python = f"{environment_path(root, environment.digest)}/bin/python"
    code = "import numpy, mypkg; print(mypkg.total(), mypkg.__file__)"
    total, file = run(
        python, code, PYTHONPATH="", PYTHONUSERBASE=str(poison), HOME=str(poison)
    ).split()
    assert total == "5"
    assert file.startswith(root)
    credited = [answer.amount for answer in keeper.answers if isinstance(answer, wire.Credit)]
    assert sum(credited) == sum(wire_size(part.size) for part in environment.bundles)
    assert keeper.end() == (0, "")


def test_what_is_there_is_not_asked_for_again(start: Callable[..., Keeper]) -> None:
    digest, data = bundle(PACKAGE)
    first = start()
    first.send(wire.Environment(1, description(digest)))
    first.bundle(1, digest, data)
    assert first.wait_state(1).problem == ""

    second = start()
    second.send(wire.Environment(9, description(digest)))

    assert second.wait_state(9).problem == ""
    assert second.answers == [wire.Stored(1), wire.EnvironmentState(9, "", "")]


def test_bundles_of_two_environments_may_arrive_mixed(start: Callable[..., Keeper]) -> None:
    one, one_data = bundle({"source/a.py": "a" * 9000})
    two, two_data = bundle({"source/b.py": "b" * 9000})
    keeper = start()
    keeper.send(
        wire.Environment(1, description(one)),
        wire.Environment(2, description(one, two)),
        wire.Blob(1, len(one_data), one, "bundle", ""),
        wire.Blob(2, len(two_data), two, "bundle", ""),
    )
    for at in range(0, len(one_data), 1000):
        keeper.bulk(2, two_data[at : at + 1000])
        keeper.bulk(1, one_data[at : at + 1000])

    assert keeper.wait_state(1).problem == ""
    assert keeper.wait_state(2).problem == ""
    assert {wire.Stored(1), wire.Stored(2)} <= set(keeper.answers)


def test_a_function_that_needs_nothing_gets_an_environment_of_nothing(
    root: str, start: Callable[..., Keeper], tmp_path: Path
) -> None:
    environment = Environment.shipped(analyze(by_value("def f(): import json")), cache=tmp_path)
    keeper = start()
    keeper.send(wire.Environment(1, environment.describe({})))

    assert keeper.wait_state(1).problem == ""
    python = f"{environment_path(root, environment.digest)}/bin/python"
    assert run(python, "import sys; print('site-packages' in sys.path[-1])") == "True"


def test_frames_may_come_byte_by_byte(start: Callable[..., Keeper]) -> None:
    digest, data = bundle({"source/a.py": ""})
    stream = wire.encode(wire.Environment(1, description(digest)))
    stream += wire.encode(wire.Blob(1, len(data), digest, "bundle", ""))
    chunk = header(len(data), len(data)) + data
    stream += pack_header(BULK, 1, len(chunk)) + chunk
    keeper = start()
    for at in range(1500):
        keeper.write(stream[at : at + 1])
    keeper.write(stream[1500:])

    assert keeper.wait_state(1).problem == ""


def test_two_storekeepers_write_the_same_bundle_at_once(
    root: str, start: Callable[..., Keeper]
) -> None:
    files = {f"source/m/part{number}.py": f"x = {number}\n" * 500 for number in range(50)}
    digest, data = bundle(files)
    keepers = [start(), start()]
    for keeper in keepers:
        keeper.send(wire.Environment(1, description(digest)))
        keeper.wait_answer(lambda answer: answer == wire.Lost(1, "absent"))
    for keeper in keepers:
        keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    for at in range(0, len(data), 100_000):
        for keeper in keepers:
            keeper.bulk(1, data[at : at + 100_000])

    assert [keeper.wait_state(1).problem for keeper in keepers] == ["", ""]
    assert os.listdir(Path(root, "store")) == [digest]
    assert len(os.listdir(Path(root, "environments"))) == 1


def test_a_corrupted_bundle_is_refused_and_may_be_sent_again(
    root: str, start: Callable[..., Keeper]
) -> None:
    digest, data = bundle(PACKAGE)
    keeper = start()
    keeper.send(wire.Environment(1, description(digest)))
    keeper.bundle(1, digest, data.replace(b"value = 7", b"value = 8"))

    problem = keeper.wait_state(1).problem
    assert "did not arrive as it was sent" in problem
    keeper.wait_answer(lambda answer: answer == wire.Lost(1, problem))
    assert os.listdir(Path(root, "store")) == []

    keeper.answers.clear()
    keeper.send(wire.Environment(1, description(digest)))
    keeper.bundle(1, digest, data)
    assert keeper.wait_state(1).problem == ""


def test_the_rest_of_a_refused_bundle_is_let_go(start: Callable[..., Keeper]) -> None:
    data = b"\1" * 2_000_000
    digest = hashlib.sha256(data).hexdigest()
    good, good_data = bundle(PACKAGE)
    keeper = start()
    keeper.send(wire.Environment(1, description(digest)))
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    keeper.bulk(1, data[:1000])
    problem = keeper.wait_state(1).problem
    assert "did not arrive" in problem
    assert keeper.answers == [wire.Lost(1, "absent"), wire.EnvironmentState(1, problem, "")]

    keeper.bulk(1, data[1000:])
    keeper.wait_answer(lambda answer: answer == wire.Lost(1, problem))
    keeper.send(wire.Environment(2, description(good)))
    keeper.bundle(1, good, good_data)

    assert keeper.wait_state(2).problem == ""
    credited = [answer.amount for answer in keeper.answers if isinstance(answer, wire.Credit)]
    assert sum(credited) == wire_size(1000) + wire_size(len(data) - 1000) + wire_size(
        len(good_data)
    )


def test_a_bundle_that_is_cut_off_leaves_nothing(root: str, start: Callable[..., Keeper]) -> None:
    digest, data = bundle(PACKAGE)
    keeper = start()
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    keeper.bulk(1, data[:-1])

    assert keeper.end() == (0, "")
    assert os.listdir(Path(root, "store")) == []


def test_a_killed_storekeepers_leftovers_are_removed_by_the_next(
    root: str, start: Callable[..., Keeper]
) -> None:
    digest, data = bundle(PACKAGE)
    keeper = start()
    keeper.send(wire.Environment(1, description(digest)))
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    keeper.bulk(1, data[:-1])
    keeper.send(wire.Environment(2, description(digest)))
    keeper.wait_answer(lambda answer: keeper.answers.count(wire.Lost(1, "absent")) == 2)
    keeper.process.send_signal(signal.SIGKILL)
    keeper.process.wait(TIMEOUT)
    assert len(os.listdir(Path(root, "store"))) == 1

    after = start()
    after.send(wire.Environment(1, description(digest)))
    after.wait_answer(lambda answer: answer == wire.Lost(1, "absent"))
    assert os.listdir(Path(root, "store")) == []


def test_a_forgotten_bundle_is_given_up(root: str, start: Callable[..., Keeper]) -> None:
    digest, data = bundle(PACKAGE)
    other, other_data = bundle({"source/a.py": ""})
    keeper = start()
    keeper.send(wire.Blob(1, len(data), digest, "bundle", ""))
    keeper.bulk(1, data[:2000])
    keeper.send(wire.Forget(1), wire.Forget(77))
    keeper.bulk(1, data[2000:])
    keeper.bundle(1, other, other_data)
    keeper.wait_answer(lambda answer: answer == wire.Stored(1))

    assert os.listdir(Path(root, "store")) == [other]


def test_what_is_in_use_survives_another_storekeepers_cap(
    root: str, start: Callable[..., Keeper]
) -> None:
    digest, data = bundle(PACKAGE)
    keeper = start()
    keeper.send(wire.Environment(1, description(digest)))
    keeper.bundle(1, digest, data)
    keeper.wait_state(1)

    other = start("1000")
    other.send(wire.Environment(1, description(digest)))
    assert other.wait_state(1).problem == ""
    assert other.end() == (0, "")
    assert os.listdir(Path(root, "store")) == [digest]
    assert keeper.end() == (0, "")

    assert start("1000").end() == (0, "")
    assert os.listdir(Path(root, "store")) == []
    assert os.listdir(Path(root, "environments")) == []


def test_machine_code_for_another_platform_is_refused(start: Callable[..., Keeper]) -> None:
    digest, _ = bundle(PACKAGE)
    keeper = start()
    elsewhere = {**platform_of_interpreter(), "machine": "riscv64"}
    keeper.send(wire.Environment(1, description(digest, platform=elsewhere)))

    assert "machine code for Linux riscv64" in keeper.wait_state(1).problem


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (wire.Environment(1, "{"), "the description of environment 1 is malformed"),
        (wire.Environment(1, '{"bundles": [], "digest": "../x"}'), "is malformed"),
        (wire.Ping(1), "a storekeeper was sent Ping"),
    ],
)
def test_a_message_that_makes_no_sense_ends_it_with_a_word(
    start: Callable[..., Keeper], message: Any, said: str
) -> None:
    keeper = start()
    keeper.send(message)

    status, text = keeper.end()
    assert status == 1
    assert said in text


def test_bytes_of_an_unknown_blob_end_it_with_a_word(start: Callable[..., Keeper]) -> None:
    keeper = start()
    keeper.bulk(5, b"123")

    status, text = keeper.end()
    assert status == 1
    assert "bytes of the blob 5, which was not announced" in text


def test_a_folder_it_cannot_use_is_the_answer_to_all_that_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    keeper = Keeper(str(file))
    keeper.send(wire.Environment(3, description()))
    keeper.bundle(4, "a" * 64, b"some bytes")
    problem = f"{file} is not a folder of this user; name another with scratch="

    assert keeper.wait_state(3).problem == problem
    lost = keeper.wait_answer(lambda answer: isinstance(answer, wire.Lost))
    assert lost == wire.Lost(4, problem)
    assert keeper.end() == (0, "")
    keeper.close()


def test_stop_ends_it(start: Callable[..., Keeper]) -> None:
    keeper = start()
    keeper.send(wire.Stop(0))

    assert keeper.process.wait(TIMEOUT) == 0
