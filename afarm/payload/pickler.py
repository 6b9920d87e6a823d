"""cloudpickle's pickler, as all that leaves this side is pickled with."""

from __future__ import annotations

import io
import types
from collections import ChainMap
from typing import Any, ClassVar

import cloudpickle

# Where a code object's constructor takes the name of its file.
_FILE = 10


def _reduce_code(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
    """Return how a code object is made again, with the name of its file.

    cloudpickle from 3.1.3 on leaves that out, so that a pickle does not depend on it; then no
    traceback could say where in the user's program it was raised.
    """
    make, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, (*arguments[:_FILE], code.co_filename, *arguments[_FILE + 1 :])


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
    """Pickles by value what cannot be imported elsewhere; code keeps the name of its file."""

    dispatch_table: ClassVar = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )


def dumps(value: object) -> bytes:
    """Return the pickle of a value, in one piece.

    Raises:
        Exception: Whatever pickling it raises.
    """
    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()
