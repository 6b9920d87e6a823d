"""Modules that were imported from a zip file, as files: what travels lies on a disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from importlib.machinery import ModuleSpec
from zipimport import zipimporter

from .places import cache_root

# Source beside data sets in one archive is what `files.LARGEST_SOURCE` is about; this only
# keeps a broken or hostile archive from filling the disk.
_MOST = 1 << 30


def file_of(spec: ModuleSpec) -> str | None:
    """Return a file with the source of a module in a zip, unpacked with all of its package.

    ``None`` if it is not in a zip, or cannot be unpacked.
    """
    loader: object = spec.loader
    if not isinstance(loader, zipimporter) or not isinstance(spec.origin, str):
        return None
    archive = loader.archive
    inner = os.path.relpath(spec.origin, archive)
    top = inner.split(os.sep)[0]
    try:
        folder = _unpacked(archive, top)
    except (OSError, zipfile.BadZipFile):
        return None
    file = os.path.join(folder, inner)
    return file if os.path.exists(file) else None


def _unpacked(archive: str, top: str) -> str:
    """Return a folder with a module or package out of a zip, unpacked once."""
    status = os.stat(archive)
    key = f"{os.path.abspath(archive)}\0{top}\0{status.st_size}\0{status.st_mtime_ns}"
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    target = cache_root() / "unzipped" / name
    if target.exists():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = tempfile.mkdtemp(prefix=".unzip-", dir=target.parent)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [each for each in opened.infolist() if each.filename.split("/")[0] == top]
            if sum(each.file_size for each in members) > _MOST:
                raise OSError(f"{archive} is too large to be unpacked")
            opened.extractall(folder, members)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return str(target)
