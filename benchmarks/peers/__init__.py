"""The systems that afarm is compared with, each in a small adapter of its own.

None of them measures a call's peak or limits its memory; afarm does both in every figure.
"""

from __future__ import annotations

import importlib
import importlib.util

from ..question import CannotMeasure
from .base import Peer

# Name -> (module, class, what must be installed, arguments).
_PEERS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "afarm reuse": ("farm", "AfarmPeer", ("afarm",), ("reuse",)),
    "afarm auto": ("farm", "AfarmPeer", ("afarm",), ("auto",)),
    "afarm fork": ("farm", "AfarmPeer", ("afarm",), ("fork",)),
    "execnet": ("execnet_", "ExecnetPeer", ("execnet",), ()),
    "multiprocessing.Pool": ("pools", "PoolPeer", (), ()),
    "pebble": ("pools", "PebblePeer", ("pebble",), ()),
    "ProcessPoolExecutor": ("pools", "ExecutorPeer", (), ()),
    "loky": ("pools", "LokyPeer", ("loky",), ()),
    "Ray": ("ray_", "RayPeer", ("ray",), ()),
    "Parsl": ("parsl_", "ParslPeer", ("parsl",), ()),
    "Dask": ("dask_", "DaskPeer", ("distributed",), ()),
    "multiprocessing.Pool, a child a call": ("pools", "PoolPeer", (), ("1",)),
    "ProcessPoolExecutor, a child a call": ("pools", "ExecutorPeer", (), ("1",)),
    "floor: reused worker, exact peak": ("floors", "ReusedFloor", (), ()),
    "floor: fork and wait4": ("floors", "ForkFloor", (), ()),
    "SSH: afarm reuse": ("farm", "AfarmPeer", ("afarm",), ("reuse", "ssh")),
    "SSH: afarm auto": ("farm", "AfarmPeer", ("afarm",), ("auto", "ssh")),
    "SSH: afarm fork": ("farm", "AfarmPeer", ("afarm",), ("fork", "ssh")),
    "SSH: execnet": ("execnet_", "ExecnetPeer", ("execnet",), ("ssh",)),
    "SSH: Dask": ("dask_", "DaskPeer", ("distributed", "asyncssh"), ("ssh",)),
}

NAMES = tuple(_PEERS)


def make_peer(name: str) -> Peer:
    """Return the adapter of a system, not opened yet.

    Raises:
        CannotMeasure: If it is not installed.
    """
    module, kind, needed, arguments = _PEERS[name]
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise CannotMeasure(f"{package} is not installed")
    peer: Peer = getattr(importlib.import_module(f"{__name__}.{module}"), kind)(*arguments)
    return peer
