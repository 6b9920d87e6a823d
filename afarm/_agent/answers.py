"""Looking into what workers have answered."""

from __future__ import annotations

import struct
from dataclasses import replace

from .._wire.frames import Frame, pack_header
from .._wire.messages import Ended, Outcome, unpack_usage
from ..resources import Usage
from .calls import Attempt
from .pool import Worker

# The start of `Ended`: attempt, outcome, exit, next, size; then the usage.
HEAD = struct.Struct("<qBqqq")
_NEXT = struct.Struct("<q")
_NEXT_AT = 17
_USAGE_AT = HEAD.size


def of_sequence(worker: Worker, sequence: int) -> Attempt | None:
    """Return the attempt that is a worker's call of this number."""
    settling: Attempt | None = worker.settling
    if settling is not None and settling.sequence == sequence:
        return settling
    for attempt in worker.sent:
        if attempt.sequence == sequence:
            found: Attempt = attempt
            return found
    return None


def bulk_in(worker: Worker) -> int:
    """Return the bytes of bulk among what a worker said that was not passed on yet."""
    return sum(len(each) for each in worker.deferred if isinstance(each, bytes))


def without_payload(ended: Ended, outcome: Outcome) -> Ended:
    """Return an answer with another outcome, which has no payload."""
    return replace(ended, outcome=outcome, size=0, layout=b"", body=b"")


def usage_of(body: bytes) -> Usage:
    """Return the usage that lies in the body of an `Ended`, without decoding the rest."""
    return unpack_usage(body, _USAGE_AT)


def with_next(frame: Frame, following: int) -> bytes:
    """Return the frame of an `Ended` with who took over its lane; the rest stays as it is."""
    body = frame.body
    header = pack_header(frame.kind, frame.subject, len(body))
    return b"".join((header, body[:_NEXT_AT], _NEXT.pack(following), body[_NEXT_AT + _NEXT.size :]))
