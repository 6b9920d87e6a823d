"""Where a module lies, found without importing it.

`importlib.util.find_spec` imports the parents of a dotted name; this asks the same
finders, editable installs' included, one level after the other.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import BYTECODE_SUFFIXES, ModuleSpec

from .zipped import file_of


@dataclass(frozen=True, slots=True)
class Located:
    """A module that was found.

    Attributes:
        name: Dotted name.
        file: The file that defines it, with links in its folder resolved; ``""`` for a
            namespace package.
        folders: Where its submodules are looked for; empty unless it is a package.
    """

    name: str
    file: str
    folders: tuple[str, ...]


def locate(name: str) -> tuple[Located, ...]:
    """Return the module and the packages above it, outermost first, as far as they are found.

    The answer is shorter than the name has parts if an inner module is not found, and
    empty if the outermost is not, or is compiled into the interpreter.
    """
    found: list[Located] = []
    parts = name.split(".")
    folders: tuple[str, ...] | None = None
    for upto in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:upto]), folders)
        if spec is None:
            break
        located = _located(spec)
        if located is None:
            break
        found.append(located)
        folders = located.folders
        if not folders:
            break
    return tuple(found)


def built_for_another(name: str) -> list[str]:
    """Return extension modules with this name that this interpreter cannot load.

    They are told by their suffix: another version of Python, or another kind of machine.
    """
    parent, _, last = name.rpartition(".")
    chain = locate(parent) if parent else ()
    folders = (chain[-1].folders if chain else ()) if parent else sys.path
    found = []
    for folder in folders:
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:
            continue  # an entry of the search path need not be there
        found += [
            os.path.join(folder, each)
            for each in sorted(names)
            if each.startswith(f"{last}.") and each.endswith((".so", ".pyd"))
        ]
    return found


def is_standard(name: str) -> bool:
    """Return whether a module comes with the interpreter, so that every node has it."""
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top in sys.builtin_module_names


def is_in_standard_library(file: str) -> bool:
    """Return whether a file lies in the standard library's folders."""
    return any(
        file.startswith(folder) and not file.startswith((f"{folder}site-", f"{folder}dist-"))
        for folder in _standard_folders()
    )


@lru_cache(maxsize=4096)
def real_folder(folder: str) -> str:
    """Return a folder with its links resolved; a file's own name is left as it is."""
    return os.path.realpath(folder or os.curdir)


def real_file(path: str) -> str:
    """Return the path of a file with the links of its folder resolved."""
    folder, name = os.path.split(path)
    return os.path.join(real_folder(os.path.abspath(folder)), name)


def _find(name: str, folders: tuple[str, ...] | None) -> ModuleSpec | None:
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    if isinstance(spec, ModuleSpec) and spec.name == name and spec.origin:
        return spec
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        try:
            spec = find_spec(name, folders) if find_spec is not None else None
        except KeyError:
            # A folder without __init__.py in a package that is not imported: such a
            # namespace asks `sys.modules` for its parent as soon as it is made.
            spec = _namespace_inside(name, folders or ())
        if spec is not None:
            return spec if isinstance(spec, ModuleSpec) else None
    file = getattr(loaded, "__file__", None)
    if isinstance(file, str):  # loaded by hand, from a place that no finder looks at
        return _spec_of_file(name, file)
    return None


def _namespace_inside(name: str, parents: tuple[str, ...]) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    inner = (os.path.join(parent, name.rpartition(".")[2]) for parent in parents)
    spec.submodule_search_locations = [folder for folder in inner if os.path.isdir(folder)]
    return spec


def _spec_of_file(name: str, file: str) -> ModuleSpec:
    spec = ModuleSpec(name, None, origin=file)
    spec.has_location = True
    if os.path.basename(file).partition(".")[0] == "__init__":
        spec.submodule_search_locations = [os.path.dirname(file)]
    return spec


def _located(spec: ModuleSpec) -> Located | None:
    folders = tuple(
        real_folder(os.path.abspath(folder)) for folder in spec.submodule_search_locations or ()
    )
    origin = spec.origin if spec.has_location else None
    if origin is None:
        return Located(spec.name, "", folders) if folders else None
    if origin.endswith(tuple(BYTECODE_SUFFIXES)):
        origin = spec.cached or origin
    unzipped = file_of(spec)
    if unzipped is not None:
        # Its submodules are looked for in the zip, by the importer that found it.
        folders = tuple(spec.submodule_search_locations or ())
        return Located(spec.name, real_file(unzipped), folders)
    return Located(spec.name, real_file(origin), folders)


@lru_cache(maxsize=1)
def _standard_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(
        real_folder(paths[key]) + os.sep for key in ("stdlib", "platstdlib") if key in paths
    )
