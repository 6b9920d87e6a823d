"""Which software a function needs, and its bundles for nodes that do not have it."""

from .bundle import Bundle, pack
from .dependencies import Dependencies, analyze, imported_ahead
from .environment import Environment
from .files import SourceTree
from .installed import Distribution
from .missing import find_missing, remember
from .scan import Import

__all__ = [
    "Bundle",
    "Dependencies",
    "Distribution",
    "Environment",
    "Import",
    "SourceTree",
    "analyze",
    "find_missing",
    "imported_ahead",
    "pack",
    "remember",
]
