"""Sizers: from what a category has used to what its next invocation may use.

`AutoSizer` is the default. The others are what it is compared with, and of use where needs are
known beforehand: `WholeNode`, `Unmanaged`, `Fixed`, `MaxSeen`, `FirstAllocation`,
`GreedyBucketing`, `ExhaustiveBucketing`, `Percentile`, `Ensemble` and, for replays, `Oracle`.
Anything with the methods of `Sizer` will do for ``Farm(sizing=)``.
"""

from ._core.sizers import (
    AutoSizer,
    Ensemble,
    ExhaustiveBucketing,
    FirstAllocation,
    Fixed,
    GreedyBucketing,
    MaxSeen,
    Oracle,
    Percentile,
    Remembering,
    Sizer,
    Unmanaged,
    WholeNode,
    sizer_named,
)

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
