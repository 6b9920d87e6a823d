"""Which software a function needs, and its bundles for nodes that do not have it."""

from .bundle import Bundle, pack
from .deflated import QUICK, SMALL, Deflated, Deflating, deflate
from .dependencies import Ahead, Dependencies, analyze, look_ahead, provide
from .environment import Environment
from .files import SourceTree
from .installed import Distribution
from .missing import find_missing, remember
from .scan import Import

__all__ = [
    "QUICK",
    "SMALL",
    "Ahead",
    "Bundle",
    "Deflated",
    "Deflating",
    "Dependencies",
    "Distribution",
    "Environment",
    "Import",
    "SourceTree",
    "analyze",
    "deflate",
    "find_missing",
    "look_ahead",
    "pack",
    "provide",
    "remember",
]
