"""Bundles made up for the tests of the store, and a way to run what they hold."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from afarm._agent import manifest
from afarm._agent.store import Store

PACKAGE = {
    "site-packages/pack/__init__.py": "from .inner import value\n",
    "site-packages/pack/inner.py": "value = 7\n",
    "site-packages/pack/tests/test_inner.py": "",
    "site-packages/pack/broken.py": "def (",
    "prefix/bin/tool": "#!python\nimport pack, sys\nprint(pack.value, sys.prefix)\n",
    "prefix/share/pack/data.txt": "data",
}


def bundle(files: Mapping[str, str], *, executable: str = "") -> tuple[str, bytes]:
    """Return the digest and the bytes of a made-up bundle."""
    lines = [
        manifest.line(
            name, hashlib.sha256(text.encode()).hexdigest(), executable=name == executable
        )
        for name, text in files.items()
    ]
    listed = manifest.text("any", lines)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in {manifest.MANIFEST: listed.decode(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o755 if name == executable else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return manifest.digest_of(listed), stream.getvalue()


def put(target: Store, files: Mapping[str, str], *, executable: str = "") -> str:
    digest, data = bundle(files, executable=executable)
    writer = target.begin(digest, len(data))
    writer.write(data)
    writer.commit()
    return digest


def run(python: Path | str, code: str, **environ: str) -> str:
    done = subprocess.run(
        [str(python), "-s", "-P", "-c", code],
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()
