"""Where functions come from: scripts, ``python -c``, notebooks, zip files, frozen modules."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# What each program does with its function: calls it on a node that has nothing.
RUN = """
import afarm
with afarm.Executor([afarm.CommandNode(["/usr/bin/env", "-i"], cores=2)], progress=False) as farm:
    print(farm.submit(f, *arguments).result(60))
"""

SCRIPT = """
import dataclasses, functools
import numpy as np
import beside

@dataclasses.dataclass
class Point:
    x: int
    def doubled(self):
        return Point(beside.double(self.x))

@functools.lru_cache
def helper(x):
    return int(np.arange(x).sum())

def f(point):
    return dataclasses.replace(point.doubled(), x=helper(4)), point.doubled() == Point(6)

arguments = (Point(3),)
"""


def run(folder: Path, *arguments: str, path: str = "", stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=stdin,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), path])),
            "AFARM_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("def double(x): return 2 * x\n")
    return tmp_path


@pytest.mark.parametrize("how", ["script", "-c", "-m", "standard input"])
def test_functions_of_main(folder: Path, how: str) -> None:
    program = SCRIPT + RUN
    (folder / "script.py").write_text(program)
    arguments = {"script": ["script.py"], "-c": ["-c", program], "-m": ["-m", "script"]}

    printed = run(folder, *arguments.get(how, ["-"]), stdin=program)

    assert printed == "(Point(x=6), True)"


def test_modules_in_a_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.writestr("zipped/__init__.py", "from . import inner\n")
        archive.writestr("zipped/inner.py", "import flat\ndef f(x): return flat.triple(x)\n")
        archive.writestr("flat.py", "import mdurl\ndef triple(x): return mdurl.encode(3 * x)\n")
    program = "import zipped\nf, arguments = zipped.inner.f, ('a ',)\n"

    assert run(folder, "-c", program + RUN, path="app.zip") == "a%20a%20a%20"


def test_a_frozen_module_travels_by_value(folder: Path) -> None:
    program = """
        import importlib.machinery, sys, types
        spec = importlib.machinery.ModuleSpec("frozen_app", None, origin="frozen")
        app = types.ModuleType("frozen_app")
        app.__spec__ = spec
        sys.modules["frozen_app"] = app
        exec('''
        import mdurl
        class Base:
            def m(self, x): return encode(x)
        def encode(x): return mdurl.encode(x)
        def g(base): return base.m("a b")
        '''.replace("\\n        ", "\\n"), vars(app))
        f = lambda base: (app.g(base), app.encode("c d"))
        arguments = (app.Base(),)
    """

    assert run(folder, "-c", textwrap.dedent(program) + RUN) == "('a%20b', 'c%20d')"


CELLS = [
    "import numpy as np\nimport afarm\nscale = 2\n",
    "def f(x):\n    return helper(x) * scale\n",
    "def helper(x):\n    import mdurl\n    return int(np.sum(x)) + len(mdurl.encode(' '))\n",
    "farm = afarm.Farm([afarm.CommandNode(['/usr/bin/env', '-i'], cores=2)], progress=False)\n"
    "await farm.open()\nprint(await farm.submit(f, np.ones(3)))",
    "scale = 10\ndef helper(x): return 1",
    "print(await farm.submit(f, None))\nawait farm.close()",
]


def test_functions_of_a_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.manager import KernelManager

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("AFARM_CACHE", str(folder / "cache"))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder))
    client = manager.blocking_client()
    client.start_channels()
    printed = ""
    try:
        client.wait_for_ready(timeout=60)
        for cell in CELLS:
            asked = client.execute(cell)
            while True:
                message = client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") != asked:
                    continue
                content = message["content"]
                if message["msg_type"] == "stream":
                    printed += content["text"]
                assert message["msg_type"] != "error", "\n".join(content["traceback"])
                if message["msg_type"] == "status" and content["execution_state"] == "idle":
                    break
    except queue.Empty:
        pytest.fail(f"the kernel does not answer; it printed {printed!r}")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert printed.split() == ["12", "10"]
