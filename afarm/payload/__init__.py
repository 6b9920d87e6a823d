"""Pickling of functions and arguments, unpickling of results and exceptions: the farm's side."""

from .arguments import Arguments, Packed, Passed, dump_arguments, load
from .failures import RemoteFailure, load_failure
from .features import features_of, parameters, sizes_of_results
from .functions import FunctionPickles, PickledFunction, category_of

__all__ = [
    "Arguments",
    "FunctionPickles",
    "Packed",
    "Passed",
    "PickledFunction",
    "RemoteFailure",
    "category_of",
    "dump_arguments",
    "features_of",
    "load",
    "load_failure",
    "parameters",
    "sizes_of_results",
]
