"""Sizers: from what a category has used to what its next invocation may use.

`AutoSizer` is the default. The others are what it is compared with, and of use where
needs are known beforehand: `WholeNode`, `Unmanaged`, `Fixed` and `MaxSeen`. Anything
with the methods of `Sizer` will do for ``Farm(sizing=)``.
"""

from ._core.sizers import (
    AutoSizer,
    Fixed,
    MaxSeen,
    Remembering,
    Sizer,
    Unmanaged,
    WholeNode,
    sizer_named,
)

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
