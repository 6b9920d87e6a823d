"""The function monitor where there is no ``/proc``: one call in a fresh process, polled by psutil.

For `afarm.monitor` on platforms other than Linux. What runs the call is the worker of a node
(`_agent.lone`); what a supervisor sees and does there, a thread of this process does here:

- Memory is a sample, but for the process's own mark (``ru_maxrss``), and has mapped files in it.
- Who leaves the call's session and loses its parent between two looks gets away.
- A fresh interpreter for each call takes longer than a fork, about 0.1 s.
"""

from .call import PolledFuture, begin

__all__ = ["PolledFuture", "begin"]
