"""cloudpickle, which is streamed along with us, for what pickle alone cannot take."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any


@functools.cache
def pickler() -> Callable[..., Any]:
    """Return cloudpickle's pickler class; imported at its first use (15 ms)."""
    made: Callable[..., Any] = importlib.import_module("cloudpickle").Pickler
    return made
