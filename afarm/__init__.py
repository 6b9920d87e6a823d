"""One pool for Python functions out of machines you can SSH into: ``await farm.submit(fn)``."""

import importlib
from typing import TYPE_CHECKING, Any

from .call import Attempt
from .errors import (
    DependencyError,
    FarmError,
    InvocationCrashed,
    InvocationError,
    InvocationTimeout,
    LocalProtocolError,
    NodeError,
    NodeLost,
    NoNodesError,
    ProtocolError,
    RecordError,
    RemoteError,
    RemoteProtocolError,
    ResourceExhausted,
    SerializationError,
    Unschedulable,
)
from .executor import Executor
from .explanation import Explanation
from .farm import Farm
from .invocation import Invocation, Ref
from .resources import Resources, Usage
from .sizing import Sizer
from .tally import Stats
from .transport.command import CommandNode
from .transport.hosts import load_nodes
from .transport.local import LocalNode
from .transport.slurm import SlurmNodes
from .transport.ssh import SSHNode
from .views import NodeInfo

if TYPE_CHECKING:
    from . import monitor
    from .environments import Dependencies, analyze
    from .monitor import monitored

__all__ = [
    "Attempt",
    "CommandNode",
    "Dependencies",
    "DependencyError",
    "Executor",
    "Explanation",
    "Farm",
    "FarmError",
    "Invocation",
    "InvocationCrashed",
    "InvocationError",
    "InvocationTimeout",
    "LocalNode",
    "LocalProtocolError",
    "NoNodesError",
    "NodeError",
    "NodeInfo",
    "NodeLost",
    "ProtocolError",
    "RecordError",
    "Ref",
    "RemoteError",
    "RemoteProtocolError",
    "ResourceExhausted",
    "Resources",
    "SSHNode",
    "SerializationError",
    "Sizer",
    "SlurmNodes",
    "Stats",
    "Unschedulable",
    "Usage",
    "analyze",
    "load_nodes",
    "monitor",
    "monitored",
]


def __getattr__(name: str) -> Any:
    # What analyses software takes 60 ms to import, and most programs never name it.
    if name in ("Dependencies", "analyze"):
        from . import environments

        return getattr(environments, name)
    if name in ("monitor", "monitored"):
        module = importlib.import_module(".monitor", __name__)
        return module if name == "monitor" else module.monitored
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
