"""Modules that only running a call can name: its node asks for them while the call waits."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import afarm
from afarm import environments
from afarm._agent.build import base_interpreter
from afarm.environments import analyze
from tests.environments.made_up import Install, Project
from tests.farm.waiting import alive, descendants, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is packed and learned here to this test."""
    monkeypatch.setenv("AFARM_CACHE", str(tmp_path / "here"))


@pytest.fixture
def poison(tmp_path: Path) -> Path:
    """A folder of modules that no call is to see."""
    folder = tmp_path / "poison"
    folder.mkdir()
    return folder


def bare_node(scratch: Path, *variables: str) -> afarm.CommandNode:
    """Return a node that has nothing but a Python, and these environment variables."""
    return afarm.CommandNode(
        ["/usr/bin/env", "-i", *variables],
        python=base_interpreter(),
        scratch=str(scratch),
        cores=2,
        name=scratch.name,
    )


@pytest_asyncio.fixture
async def farm(tmp_path: Path, poison: Path) -> AsyncIterator[afarm.Farm]:
    """A farm of one node that has nothing but a Python, and modules where they do not count."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user_site = tmp_path / "home" / ".local" / "lib" / python / "site-packages"
    user_site.parent.mkdir(parents=True)
    user_site.symlink_to(poison)
    node = bare_node(tmp_path / "there", f"HOME={tmp_path / 'home'}", f"PYTHONPATH={poison}")
    async with afarm.Farm([node], progress=False) as farm:
        yield farm


class Asked:
    """What nodes asked for; answered when `answer` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: Counter[str] = Counter()
        self.first = threading.Event()
        self.answer = threading.Event()
        find = environments.find_missing

        def ask(name: str, known: Any) -> Any:
            self.names[name] += 1
            self.first.set()
            assert self.answer.wait(60)
            return find(name, known)

        monkeypatch.setattr(environments, "find_missing", ask)

    async def wait_first(self) -> None:
        assert await asyncio.to_thread(self.first.wait, 60)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(monkeypatch)
    asked.answer.set()
    return asked


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """As `asked`; no answer goes out until it is to."""
    return Asked(monkeypatch)


def by_value(source: str) -> Any:
    """Return ``f`` of a program of which nothing can be imported."""
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(source, scope)
    return scope["f"]


LOAD = "def f(name):\n  import importlib\n  return importlib.import_module(name).value\n"

TRY = "def f(name):\n  try: return __import__(name).value\n  except ImportError: return None\n"


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
async def test_a_call_goes_on_with_what_it_missed(
    farm: afarm.Farm,
    install: Install,
    tmp_path: Path,
    isolation: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install("late", {"late.py": "import base\nvalue = base.value + 1\n"}, requires=("base",))
    install("base", {"base.py": "value = 1\n"})
    effects = tmp_path / "effects"
    call = by_value(
        "def f(effects, name):\n"
        "  with open(effects, 'a') as file: file.write('x')\n"
        "  return __import__(name).value"
    )
    view = farm.options(isolation=isolation)
    caplog.set_level(logging.INFO, "afarm")

    invocation = view.submit(call, str(effects), "late")

    assert await invocation == 2
    assert effects.read_text() == "x"
    assert len(invocation.attempts) == 1
    assert "late" not in sys.modules
    assert "f imports late" in caplog.text
    assert "base 1.0, late 1.0" in caplog.text


async def test_it_belongs_to_the_function_from_then_on(
    farm: afarm.Farm, install: Install, asked: Asked, tmp_path: Path
) -> None:
    install("late", {"late.py": "value = 1\n"})
    assert await farm.submit(by_value(LOAD), "late") == 1

    again = by_value(LOAD)

    assert [found.name for found in analyze(again).distributions] == ["late"]
    assert await farm.submit(again, "late") == 1
    assert asked.names == {"late": 1}
    # That without it, and that with it, which was there already.
    assert len(list(Path(tmp_path, "there", "environments").iterdir())) == 2


async def test_what_came_along_with_another_serves_workers_that_were_there_before(
    farm: afarm.Farm, install: Install
) -> None:
    install("late", {"late.py": "value = 1\n"}, requires=("base",))
    install("base", {"base.py": "value = 2\n"})
    view = farm.options(isolation="fork")
    call = by_value(LOAD)
    assert await view.submit(call, "late") == 1

    # The worker of the second call was forked while the first one ran.
    assert await view.submit(call, "base") == 2


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
async def test_each_name_is_asked_for_once(
    farm: afarm.Farm, install: Install, asked: Asked, isolation: str
) -> None:
    install("late", {"late.py": "value = 1\n"})
    view = farm.options(isolation=isolation)
    names = ["late", "nowhere_optional"] * 20

    values = [value async for value in view.map(by_value(TRY), names)]

    assert values == [1, None] * 20
    assert asked.names == {"late": 1, "nowhere_optional": 1}


async def test_what_is_here_neither_is_missing_as_anywhere(farm: afarm.Farm) -> None:
    call = by_value(
        "def f(name):\n"
        "  import importlib.util\n"
        "  assert importlib.util.find_spec(name) is None\n"
        "  return __import__(name)\n"
    )

    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'") as caught:
        await farm.submit(call, "nowhere")

    assert caught.value.name == "nowhere"
    assert "asked this side for 'nowhere': nothing here provides it" in caught.value.__notes__[-1]


async def test_parts_of_a_package_come_from_several_distributions(
    farm: afarm.Farm, install: Install, project: Project
) -> None:
    install("space-one", {"space/one.py": "value = 1\n"})
    install("space-two", {"space/two.py": "value = 2\n"})
    install("whole", {"whole/__init__.py": "value = 3\n"})
    install("whole-part", {"whole/part.py": "from . import value as v\nvalue = v + 1\n"})
    project.write({"own_late/__init__.py": "from .deep import value\n", "own_late/deep.py": ""})
    project.write({"own_late/deep.py": "import space.two\nvalue = space.two.value + 3\n"})
    call = by_value(
        "def f(names):\n"
        "  import importlib, space.one, whole\n"
        "  return [importlib.import_module(name).value for name in names]\n"
    )

    assert await farm.submit(call, ["space.two", "whole.part", "own_late"]) == [2, 4, 5]


async def test_an_argument_may_need_it_to_be_loaded(farm: afarm.Farm, project: Project) -> None:
    project.write(
        {
            "own_rebuild.py": (
                "def rebuild(a, b): return __import__(a + b).value\n"
                "class Hiding:\n  def __reduce__(self): return rebuild, ('own_', 'hidden')\n"
            ),
            "own_hidden.py": "value = 5\n",
        }
    )

    assert await farm.submit(int, project.load("own_rebuild").Hiding()) == 5


async def test_threads_of_a_call_import_at_once(
    farm: afarm.Farm, install: Install, asked: Asked
) -> None:
    names = [f"late_{n}" for n in range(4)]
    for n, name in enumerate(names):
        install(name, {f"{name}.py": f"value = {n}\n"})
    call = by_value(
        "def f(names):\n"
        "  from concurrent.futures import ThreadPoolExecutor\n"
        "  with ThreadPoolExecutor(8) as pool:\n"
        "    found = list(pool.map(__import__, names * 2))\n"
        "  return [module.value for module in found]\n"
    )

    assert await farm.submit(call, names) == [0, 1, 2, 3] * 2
    assert asked.names == dict.fromkeys(names, 1)


async def test_a_stream_imports_between_its_items(farm: afarm.Farm, install: Install) -> None:
    names = [f"late_{n}" for n in range(3)]
    for n, name in enumerate(names):
        install(name, {f"{name}.py": f"value = bytes([{n}]) * 200_000\n"})
    call = by_value(
        "def f(names):\n"
        "  from concurrent.futures import ThreadPoolExecutor\n"
        "  with ThreadPoolExecutor(1) as pool:\n"
        "    for ahead in [pool.submit(__import__, name) for name in names]:\n"
        "      yield b'x' * 200_000\n"
        "      yield ahead.result().value\n"
    )

    items = [item[:1] async for item in farm.stream(call, names)]

    assert items == [b"x", b"\0", b"x", b"\1", b"x", b"\2"]


async def test_a_forked_child_of_a_call_does_not_ask(
    farm: afarm.Farm, install: Install, asked: Asked
) -> None:
    install("late", {"late.py": "value = 1\n"})
    call = by_value(
        "def f(name):\n"
        "  import os\n"
        "  child = os.fork()\n"
        "  if not child:\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: os._exit(3)\n"
        "    finally: os._exit(4)\n"
        "  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "  return status, __import__(name).value\n"
    )

    assert await farm.submit(call, "late") == (3, 1)


async def test_what_a_call_starts_afterwards_has_it_too(farm: afarm.Farm, install: Install) -> None:
    install("late", {"late.py": "def twice(x): return 2 * x\n"})
    call = by_value(
        "def f(name):\n"
        "  import multiprocessing, subprocess, sys\n"
        "  twice = __import__(name).twice\n"
        "  code = f'import {name}; print({name}.twice(4))'\n"
        "  said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "  with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    return said.stdout + said.stderr, pool.map(twice, [1, 2])\n"
    )

    assert await farm.submit(call, "late") == ("8\n", [2, 4])


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
async def test_its_programs_are_there_as_well(
    farm: afarm.Farm, install: Install, isolation: str
) -> None:
    script = "#!/home/me/bin/python3\nimport late\nprint(late.value)\n"
    site = install("late", {"late.py": "value = 1\n", "../../../bin/late-tool": script})
    (site / "../../../bin/late-tool").chmod(0o755)
    call = by_value(
        "def f(name):\n"
        "  import subprocess\n"
        "  __import__(name)\n"
        "  return subprocess.check_output([f'{name}-tool'], text=True)\n"
    )
    view = farm.options(isolation=isolation)

    assert [await view.submit(call, "late") for _ in range(3)] == ["1\n"] * 3


async def test_the_nodes_own_modules_do_not_count(
    farm: afarm.Farm, install: Install, poison: Path
) -> None:
    for name in ("late", "nowhere"):
        (poison / f"{name}.py").write_text("value = 'poisoned'\n")
    install("late", {"late.py": "value = 1\n"})

    assert await farm.submit(by_value(LOAD), "late") == 1
    assert await farm.submit(by_value(TRY), "nowhere") is None


async def test_two_calls_wait_for_one_answer(
    farm: afarm.Farm, install: Install, held: Asked, tmp_path: Path
) -> None:
    install("late", {"late.py": "value = 1\n"})
    begun = tmp_path / "begun"
    begun.mkdir()
    call = by_value(
        "def f(begun, n, name):\n"
        "  open(f'{begun}/{n}', 'w').close()\n"
        "  return n, __import__(name).value\n"
    )

    both = [farm.submit(call, str(begun), n, "late") for n in range(2)]
    await held.wait_first()
    await until(lambda: len(list(begun.iterdir())) == 2)
    held.answer.set()

    assert await asyncio.gather(*both) == [(0, 1), (1, 1)]
    assert held.names == {"late": 1}


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
async def test_a_call_that_waits_can_be_cancelled(
    farm: afarm.Farm, install: Install, held: Asked, isolation: str
) -> None:
    install("late", {"late.py": "value = 1\n"})
    view = farm.options(isolation=isolation)
    invocation = view.submit(by_value(LOAD), "late")
    await held.wait_first()

    invocation.cancel()

    with pytest.raises(asyncio.CancelledError):
        await invocation
    assert await view.submit(int, "7") == 7
    held.answer.set()
    assert await view.submit(by_value(LOAD), "late") == 1
    assert held.names == {"late": 1}


async def test_the_wall_time_of_a_call_that_waits_runs(
    farm: afarm.Farm, install: Install, held: Asked
) -> None:
    install("late", {"late.py": "value = 1\n"})

    with pytest.raises(afarm.InvocationTimeout):
        await farm.options(wall_time=0.5).submit(by_value(LOAD), "late")

    held.answer.set()


@pytest.mark.parametrize("isolation", ["fork", "reuse"])
async def test_a_signal_may_end_the_wait(
    farm: afarm.Farm, install: Install, held: Asked, tmp_path: Path, isolation: str
) -> None:
    install("late", {"late.py": "value = 1\n"})
    install("later", {"later.py": "value = 2\n"})
    ended = tmp_path / "ended"
    call = by_value(
        "def f(ended, first, second):\n"
        "  import signal\n"
        "  def enough(*_): raise TimeoutError\n"
        "  signal.signal(signal.SIGALRM, enough)\n"
        "  signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "  try: __import__(first)\n"
        "  except TimeoutError: open(ended, 'w').close()\n"
        "  return __import__(second).value, __import__(first).value\n"
    )
    view = farm.options(isolation=isolation)

    invocation = view.submit(call, str(ended), "late", "later")
    await until(ended.exists)
    held.answer.set()

    assert await invocation == (2, 1)
    assert await view.submit(int, "7") == 7


async def test_a_node_that_comes_later_gets_it_with_the_environment(
    farm: afarm.Farm, install: Install, asked: Asked, tmp_path: Path
) -> None:
    install("late", {"late.py": "value = 1\n"})
    call = by_value(LOAD)
    assert await farm.submit(call, "late") == 1
    (first,) = farm.nodes

    await farm.add_node(bare_node(tmp_path / "second"))
    await farm.remove_node(first.name)

    assert await farm.submit(call, "late") == 1
    assert asked.names == {"late": 1}


async def test_a_call_that_waited_on_a_node_that_is_lost_runs_again(
    farm: afarm.Farm, install: Install, held: Asked
) -> None:
    install("late", {"late.py": "value = 1\n"})
    invocation = farm.submit(by_value(LOAD), "late")
    await held.wait_first()
    started = descendants()
    (link,) = farm._life.running().links.values()

    os.kill(link.description["pid"], signal.SIGKILL)
    held.answer.set()

    assert await invocation == 1
    assert [attempt.outcome for attempt in invocation.attempts] == ["lost", "returned"]
    await until(lambda: not any(map(alive, started)))
    assert held.names == {"late": 1}


async def test_a_farm_closes_while_a_call_waits(
    tmp_path: Path, install: Install, held: Asked
) -> None:
    install("late", {"late.py": "value = 1\n"})
    async with afarm.Farm([bare_node(tmp_path / "there")], progress=False) as farm:
        invocation = farm.submit(by_value(LOAD), "late")
        await held.wait_first()
        started = descendants()
        invocation.cancel()

    assert not any(map(alive, started))
    held.answer.set()
