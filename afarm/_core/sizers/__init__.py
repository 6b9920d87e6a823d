"""From history and features to an allocation: what `FarmState` asks, and who answers."""

from .auto import AutoSizer
from .base import Remembering, Sizer, sizer_named
from .baselines import Fixed, MaxSeen, Unmanaged, WholeNode

__all__ = [
    "AutoSizer",
    "Fixed",
    "MaxSeen",
    "Remembering",
    "Sizer",
    "Unmanaged",
    "WholeNode",
    "sizer_named",
]
