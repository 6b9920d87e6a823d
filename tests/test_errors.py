"""Errors travel: through process pools, `multiprocessing`, a user's own pickles."""

from __future__ import annotations

import copy
import pickle

import pytest

from afarm import errors
from afarm.resources import Usage

FACTS = {"node": "lab1", "attempts": 2, "usage": Usage(wall_time=1.5), "output": "last words"}

MADE: list[errors.FarmError] = [
    errors.FarmError("message"),
    errors.InvocationError("message", **FACTS),  # type: ignore[arg-type]
    errors.ResourceExhausted("message", resource="memory", limit=5, **FACTS),  # type: ignore[arg-type]
    errors.InvocationTimeout("message", **FACTS),  # type: ignore[arg-type]
    errors.InvocationCrashed("message", exit=-9, **FACTS),  # type: ignore[arg-type]
    errors.NodeLost("message", **FACTS),  # type: ignore[arg-type]
    errors.Unschedulable("message"),
    errors.RemoteError("message", type_name="a.B", traceback="text", **FACTS),  # type: ignore[arg-type]
    errors.DependencyError("message", names=["numpy"]),
    errors.SerializationError("message", part="result"),
    errors.NodeError("message", node="lab1"),
    errors.NoNodesError("message", reasons={"lab1": "refused"}),
    errors.RecordError("message"),
    errors.ProtocolError("message"),
    errors.LocalProtocolError("message"),
    errors.RemoteProtocolError("message"),
]


def test_every_error_is_among_those_tried() -> None:
    defined = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.FarmError)
    }
    assert defined == {type(error) for error in MADE}


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling_and_copying(error: errors.FarmError) -> None:
    error.add_note("a note")
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is type(error)
        assert found.args == error.args
        assert str(found) == str(error)
        assert vars(found) == vars(error)
