"""What is noted beside things in the cache: small files of JSON that nobody changes."""

from __future__ import annotations

import json
import os


def write_note(folder: str, name: str, content: object) -> None:
    """Write a note, and wait until it is on the disk.

    Raises:
        OSError: If it cannot be written.
    """
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(path, 0o444)


def read_note(folder: str, name: str) -> object:
    """Return what was noted; ``None`` if nothing was, or not all of it."""
    try:
        with open(os.path.join(folder, name)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None  # being removed, or cut off when the machine went down
