"""What a function raised on a node, as the caller here is to see it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

from .._wire.payloads import Buffer

log = logging.getLogger("afarm")


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


def load_failure(parts: Sequence[Buffer]) -> RemoteFailure:
    """Return what an agent's payload says of an exception."""
    type_name, message, traceback, pickled, detail = pickle.loads(parts[0], buffers=parts[1:])
    exception = None
    if pickled is not None:
        try:
            exception = pickle.loads(pickled)
        except Exception as exc:  # whatever the constructor of a user's exception raises
            log.debug("%s cannot be loaded here: %r", type_name, exc)
    if not isinstance(exception, BaseException):
        exception = None
    return RemoteFailure(type_name, message, traceback, exception, detail)
