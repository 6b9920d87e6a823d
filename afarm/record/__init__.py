"""The record of a farm: a file (SQLite) with every invocation, and what was learned of them.

``Farm(record="farm.db")`` writes it behind the run; `sqlite3 farm.db "select * from invocations"`
reads it. A later run with the same file begins with the sizes learned. Two farms may write one
file; a killed one leaves nothing to repair, and loses a quarter of a second at most.

Views, for people (sizes in MiB, times as text in UTC):

    runs         one farm from opening to closing: how many calls ended how
    invocations  each call: category, outcome, how long it took, attempts, peak memory, error
    attempts     each try: node, outcome, allocation and usage
    categories   of each run and category: calls, failures, mean and peak use, efficiency
    features     what of the arguments sizes were predicted from: how many calls, of which values
    failures     errors by category and message
    nodes        each node as it was last seen
    results      what ``memo=True`` keeps

Tables, for programs (bytes, seconds; times in seconds since the epoch):

    run          id, began, seen (the last sign of life), ended, ... and counts
    category     id, name, code (digest of the function's code)
    invocation   run, number, category -> category.id, submitted, ended, outcome, error,
                 stated (NULL: all of its size was predicted); sized_by: what of its arguments
                 its memory was last predicted from, as in "size(table)"; sized_from: its value
                 (bytes, items, or the number itself); NULL: from nothing that it was given
    attempt      run, number, attempt (from 1), node, outcome,
                 allocated_* (NULL: not limited), used_* (`Usage`; NULL: lost with its node);
                 used_gpu_memory: of the GPU of which it used most (NULL: none was seen)
    running      what is on the nodes now; of a killed farm: what was there
    waiting      what has waited longest, and why
    node         run, name, capacity, state, use; clock: add it to the node's times for the farm's
    reading      run, at, node: how full it was and what it said of its load and memory
    size         sizer, category, code, state: what a sizer knows, as JSON
    result       key (digest of function, arguments and environment), the pickle and its
                 buffers' lengths; above 1 MB ``file`` names it in FILE.results/

``outcome`` of an invocation: returned, failed, cancelled, recalled (its result was in the
record). Of an attempt: returned, raised, crashed, exhausted RESOURCE, killed, lost ...
Times of attempts (``used_start``) are by their node's clock.
"""

from .entries import (
    CallEntry,
    NodeEntry,
    ResultEntry,
    RunEntry,
    RunningEntry,
    SizeEntry,
    Snapshot,
    WaitingEntry,
)
from .results import BESIDE, Results, digest_of, open_parts
from .schema import connect, connect_to_read
from .sizes import Learned, LearnedSizes
from .writer import Writer

__all__ = [
    "BESIDE",
    "CallEntry",
    "Learned",
    "LearnedSizes",
    "NodeEntry",
    "ResultEntry",
    "Results",
    "RunEntry",
    "RunningEntry",
    "SizeEntry",
    "Snapshot",
    "WaitingEntry",
    "Writer",
    "connect",
    "connect_to_read",
    "digest_of",
    "open_parts",
]
