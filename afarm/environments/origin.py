"""Where a distribution came from, and how to ask for the same one again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from .files import base_folder, metadata_folder
from .modules import real_folder

if TYPE_CHECKING:
    from importlib.metadata import Distribution as Metadata


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a distribution came from if not from an index (PEP 610).

    Attributes:
        url: As pip takes it after ``NAME @``, with the commit of a repository.
        project: The folder of an editable one; empty for others.
    """

    url: str
    project: str = ""


def origin_of(metadata: Metadata) -> Origin | None:
    """Return where a distribution came from; ``None``: from an index, by its version."""
    text = metadata.read_text("direct_url.json")
    if not text:
        # `setup.py develop` leaves the metadata in the project, which is on the path.
        base = base_folder(metadata)
        inside = {"site-packages", "dist-packages"} & set(base.split(os.sep))
        if inside or not metadata_folder(metadata).endswith(".egg-info"):
            return None
        return Origin(Path(base).as_uri(), base)
    try:
        stated = json.loads(text)
        url = str(stated["url"])
        if (stated.get("dir_info") or {}).get("editable") is True:
            return Origin(url, real_folder(unquote(urlsplit(url).path)))
        repository = stated.get("vcs_info")
        if repository is not None:
            url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
        if stated.get("subdirectory"):
            url += f"#subdirectory={stated['subdirectory']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Origin(url)


def pinned(name: str, version: str, url: str = "") -> str:
    """Return the line that asks for a distribution, as ``pip install -r`` reads it.

    Args:
        name: As its author spells it.
        version: As it was installed; empty where its metadata say none.
        url: What it was installed from, if not from an index.
    """
    from packaging.version import InvalidVersion, Version

    if url:
        return f"{name} @ {url}"
    if not version:
        return name
    try:
        Version(version)
    except InvalidVersion:  # as they were before PEP 440; some of Debian's still are
        return f"{name}==={version}"
    return f"{name}=={version}"
