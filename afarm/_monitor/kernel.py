"""Which kernels have what nodes need."""

from __future__ import annotations


def why_no_node(system: str) -> str:
    """Return why a machine cannot be a node; empty if it can.

    Args:
        system: Its kernel, as ``sys.platform`` or ``uname -s`` names it.
    """
    if system.lower().startswith("linux"):
        return ""
    return (
        f"it runs {system}, and a node must run Linux: calls are measured, limited and ended by"
        " what only its kernel offers; name a machine that does, or a virtual machine or container"
        " there"
    )
