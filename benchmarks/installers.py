"""The same environment made on a host by an installer: ``pip``, or ``uv pip``.

Before: the wheels of the pinned closure are fetched from the index that this machine uses, once,
into ``~/.cache/afarm-benchmarks``; ``uv``'s program is copied to the host.

Counted, in one command by `ssh`: a virtual environment without pip in it; ``install`` of the
pinned lines with ``--no-deps`` (nothing is left to be solved), the wheels coming from a web server
here over the host's link, as many at once as the installer likes; the start of an interpreter
that imports the module. Bytecode is compiled as the installer does by default: pip before, uv
not, so that the first import does. Cold: the installer's cache on the host is empty. Warm: another
environment after that, from the cache that the first one has left there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import shlex
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .hosts import Hosts
from .question import CannotMeasure

PIP, UV = "pip install", "uv pip install"
INSTALLERS = (PIP, UV)

# Not in this package: it travels to nodes with the functions of it that are called.
_WHEELS = Path.home() / ".cache" / "afarm-benchmarks" / "wheels"


def fetch(requirements: Sequence[str]) -> Path:
    """Return a folder with the wheels of some pinned lines, and nothing else.

    Raises:
        CannotMeasure: If there is no pip here, or it finds no wheels.
    """
    name = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:16]
    folder = _WHEELS / name
    if (folder / "whole").exists():
        return folder
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
         "--dest", str(folder), *requirements],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if fetched.returncode:
        raise CannotMeasure(f"no wheels: {fetched.stderr.strip()[-200:]}")
    (folder / "whole").touch()
    return folder


@contextlib.contextmanager
def served(folder: Path, address: str) -> Iterator[str]:
    """Let hosts fetch what is in a folder; yield the address of the list of it."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}/"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: it would fill what is kept of errors."""


def bring(installer: str, bed: Hosts, python: str) -> None:
    """Bring the installer to the host ``h1``, if it is not there.

    Raises:
        CannotMeasure: If it is not to be had.
    """
    if installer == PIP:
        bed.call("h1", f"{python} -I -m pip --version")
        return
    if importlib.util.find_spec("uv") is None:
        raise CannotMeasure("uv is not installed here")
    from uv import find_uv_bin

    with open(find_uv_bin(), "rb") as program:
        bed.call("h1", "cat > uv && chmod +x uv", stdin=program)


def command_to_install(
    installer: str, python: str, name: str, requirements: Sequence[str], url: str
) -> str:
    """Return the command line that makes an environment and installs into it.

    Args:
        installer: One of `INSTALLERS`.
        python: The interpreter of the environment.
        name: Of the environment.
        requirements: Pinned, all of them.
        url: Where the wheels are.
    """
    host = urllib.parse.urlsplit(url).hostname
    options = f"-q --no-deps --no-index --find-links {url} {shlex.join(requirements)}"
    # What is configured for this machine is not for hosts, which see its /etc.
    if installer == PIP:
        return (
            f"{python} -I -m venv --without-pip {name} && export PIP_CONFIG_FILE=/dev/null "
            f"PIP_DISABLE_PIP_VERSION_CHECK=1 && {python} -I -m pip --python {name}/bin/python "
            f"install --trusted-host {host} {options}"
        )
    return (
        f"export UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never && ./uv venv -q --python {python} {name}"
        f" && ./uv pip install --python {name}/bin/python {options}"
    )


def first_import(
    installer: str, bed: Hosts, python: str, requirements: Sequence[str], module: str
) -> tuple[float, float, float]:
    """Return how long an environment and its first import take, cold, warm; the import again.

    Raises:
        CannotMeasure: If it cannot be made.
    """
    importing = f"bin/python -I -c {shlex.quote(f'import {module}')}"
    took = []
    with served(fetch(requirements), bed.address) as url:
        for name in ("cold", "warm"):
            command = command_to_install(installer, python, name, requirements, url)
            began = time.perf_counter()
            bed.call("h1", f"{command} && {name}/{importing}")
            took.append(time.perf_counter() - began)
    began = time.perf_counter()
    bed.call("h1", f"warm/{importing}")
    return took[0], took[1], time.perf_counter() - began
