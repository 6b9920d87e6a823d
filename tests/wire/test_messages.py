"""Every message survives the wire, and a malformed one is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afarm._agent import internal
from afarm._wire import messages as wire
from afarm._wire.codec import KINDS
from afarm._wire.frames import Frame, FrameReader
from afarm.errors import LocalProtocolError, RemoteProtocolError
from afarm.resources import Resources, Usage

# Those of the farm's protocol: what is spoken within a node is known too, once it is imported.
MESSAGES = sorted(wire.TO_AGENT | wire.TO_FARM)

counts = st.integers(0, 2**62)
seconds = st.floats(0, 1e9)
resources = st.builds(
    Resources,
    *(st.none() | kind for kind in (seconds, counts, counts, counts, seconds, seconds, counts)),
)
usages = st.builds(
    Usage,
    **{
        field.name: {"float": seconds, "int": counts}.get(
            str(field.type), st.none() | st.integers(-64, 255)
        )
        for field in dataclasses.fields(Usage)
        if field.name not in ("curve", "gpu_memory")  # they do not travel in a usage
    },
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": counts,
    "float": seconds,
    "bool": st.booleans(),
    "str": st.text(max_size=50),
    "bytes": st.binary(max_size=200),
    "Isolation": st.sampled_from(wire.Isolation),
    "Outcome": st.sampled_from(wire.Outcome),
    "KillReason": st.sampled_from(wire.KillReason),
    "Resources": resources,
    "Usage": usages,
}


def message_of(kind: int) -> st.SearchStrategy[wire.Message]:
    cls: Any = KINDS[kind].new
    return st.builds(cls, *(VALUES[str(field.type)] for field in dataclasses.fields(cls)))


any_message = st.sampled_from(MESSAGES).flatmap(message_of)


def frame_of(data: bytes) -> Frame:
    reader = FrameReader(frozenset(MESSAGES))
    [frame] = reader.feed(data)
    assert isinstance(frame, Frame)
    return frame


@given(any_message)
def test_every_message_survives_the_wire(message: wire.Message) -> None:
    assert wire.decode(frame_of(wire.encode(message))) == message


@given(any_message, st.data())
def test_a_body_that_is_cut_or_changed_is_refused_or_means_something(
    message: wire.Message, data: st.DataObject
) -> None:
    frame = frame_of(wire.encode(message))
    body = bytearray(frame.body)
    if body and data.draw(st.booleans()):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(body)))
    refusal = ""
    try:
        wire.decode(Frame(frame.kind, frame.subject, bytes(body[:cut])))
    except RemoteProtocolError as exc:
        refusal = str(exc)
    assert not refusal or type(message).__name__ in refusal


def test_a_malformed_message_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed Kill"):
        wire.decode(Frame(wire.Kill.kind, 1, b"\0"))


def test_bytes_after_the_end_are_refused() -> None:
    frame = frame_of(wire.encode(wire.Ping(7)))
    with pytest.raises(RemoteProtocolError, match="too many"):
        wire.decode(Frame(frame.kind, frame.subject, frame.body + b"x"))


def test_a_value_that_does_not_fit_is_a_fault_of_this_side() -> None:
    with pytest.raises(LocalProtocolError, match="cannot encode"):
        wire.encode(wire.Ack("many"))  # type: ignore[arg-type]


def test_what_each_end_understands_is_disjoint_but_for_flow_control() -> None:
    both = wire.TO_AGENT & wire.TO_FARM
    assert both == {wire.Ack.kind, wire.Credit.kind}
    assert set(MESSAGES) == {kind for kind in KINDS if kind < internal.Setup.kind}
