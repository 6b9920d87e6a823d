"""From history and features to an allocation: what `FarmState` asks, and who answers."""

from .auto import AutoSizer
from .base import Remembering, Sizer, sizer_named
from .baselines import Fixed, MaxSeen, Oracle, Unmanaged, WholeNode
from .bucketing import ExhaustiveBucketing, GreedyBucketing
from .first_allocation import FirstAllocation
from .percentile import Ensemble, Percentile

__all__ = [
    "AutoSizer",
    "Ensemble",
    "ExhaustiveBucketing",
    "FirstAllocation",
    "Fixed",
    "GreedyBucketing",
    "MaxSeen",
    "Oracle",
    "Percentile",
    "Remembering",
    "Sizer",
    "Unmanaged",
    "WholeNode",
    "sizer_named",
]
