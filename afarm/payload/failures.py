"""What a function raised on a node, as the caller here is to see it."""

from __future__ import annotations

import linecache
import logging
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .._wire.payloads import Buffer

log = logging.getLogger("afarm")

# A frame in the text of a traceback; its line of source follows, deeper indented.
_PLACE = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+), in ')


@dataclass(frozen=True, slots=True)
class RemoteFailure:
    """An exception of a node.

    Attributes:
        type_name: The qualified name of its type.
        message: Its text.
        traceback: The remote traceback as text.
        exception: The exception itself, or ``None`` if it cannot be loaded here or must
            not be raised here.
        detail: What else there is to say: which part of a result cannot be pickled.
    """

    type_name: str
    message: str
    traceback: str
    exception: BaseException | None
    detail: str


def with_source(traceback: str) -> str:
    """Return a traceback's text with the lines of source that its node did not have.

    A function that travels by value has its file here alone: a script, a notebook's cell.
    """
    lines = traceback.splitlines()
    filled = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        filled.append(line)
        place = _PLACE.match(line)
        if place is not None and not following.startswith("    "):
            source = linecache.getline(place["file"], int(place["line"])).strip()
            if source:
                filled.append(f"    {source}")
    return "\n".join(filled)


def load_failure(parts: Sequence[Buffer]) -> RemoteFailure:
    """Return what an agent's payload says of an exception."""
    type_name, message, traceback, pickled, detail = pickle.loads(parts[0], buffers=parts[1:])
    traceback = with_source(traceback)
    exception = None
    if pickled is not None:
        try:
            exception = pickle.loads(pickled)
        except Exception as exc:  # whatever the constructor of a user's exception raises
            log.debug("%s cannot be loaded here: %r", type_name, exc)
    if not isinstance(exception, BaseException):
        exception = None
    return RemoteFailure(type_name, message, traceback, exception, detail)
