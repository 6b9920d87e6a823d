"""The program that runs first on a node: makes the streamed modules importable.

It travels as source, in front of the modules that it serves (see `bootstrap`), and is
run by the interpreter's command line with the compressed stream as ``b`` and the
stream itself as ``d``. Standard library only, and as little of it as can be: every
process on a node begins with this.
"""

from __future__ import annotations

import marshal
import sys

# As `typing` has it, which alone takes 8 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

ROOT = "afarm"


class Importer:
    """Finds and loads the streamed modules; stands first in ``sys.meta_path``.

    Tracebacks have the farm's own file names in them: its files have the text.
    """

    def __init__(self, modules: dict[str, tuple[bool, str, bytes]]) -> None:
        self._modules = modules  # whether it is a package, its file, its code

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """Return the spec of a streamed module, or ``None``."""
        found = self._modules.get(name)
        if found is None:
            if name.startswith(ROOT + "."):
                complete()
            return None
        is_package, file, _ = found
        loader: Any = self
        return type(sys.__spec__)(name, loader, origin=file, is_package=is_package)

    def create_module(self, spec: Any) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code in it."""
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, name: str) -> CodeType:
        """Return the code of a module."""
        code: CodeType = marshal.loads(self._modules[name][2])
        return code

    def is_package(self, name: str) -> bool:
        """Return whether a module is a package."""
        return self._modules[name][0]


def complete() -> None:
    """Join the whole package to the streamed part, where ``sys.path`` has it.

    In a worker, the user's modules may import the library as it was imported where
    they come from. What was streamed stays as it is.
    """
    package = sys.modules[ROOT]
    if package.__path__:
        return
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(ROOT, sys.path)
    if spec is None or spec.loader is None or not spec.submodule_search_locations:
        return
    package.__path__[:] = spec.submodule_search_locations
    package.__file__ = spec.origin
    try:
        spec.loader.exec_module(package)
    except BaseException:
        package.__path__.clear()  # not half of it: whoever asks again sees the same error
        raise


def _public_name(name: str) -> Any:
    """Return a name of the package that is not streamed (its module ``__getattr__``)."""
    package = sys.modules[ROOT]
    if not package.__path__ and (not name.startswith("__") or name in ("__all__", "__version__")):
        complete()
        if name in vars(package):
            return vars(package)[name]
        lazily = vars(package)["__getattr__"]
        if lazily is not _public_name:  # the package's own, which imports some things only now
            return lazily(name)
    raise AttributeError(f"module {ROOT!r} has no attribute {name!r}")


def install(packed: bytes, unpacked: bytes, tag: str) -> None:
    """Make the streamed modules importable, in a process that has nothing else.

    Args:
        packed: The stream as it came: the package keeps it, to start further processes.
        unpacked: The same, decompressed.
        tag: Implementation and minor version that the code is for, as ``cpython-311``.
    """
    if sys.implementation.cache_tag != tag:
        sys.stderr.write(
            f"afarm: {sys.executable} is {sys.implementation.cache_tag}, the farm's Python is"
            f" {tag}; name one of that version with python=\n"
        )
        sys.exit(86)
    importer: Any = Importer(marshal.loads(unpacked.partition(b"\0")[2]))
    package: Any = type(sys)(ROOT)
    package.__path__ = []
    package.__loader__ = importer
    package.__spec__ = type(sys.__spec__)(ROOT, importer, is_package=True)
    package.__package__ = ROOT
    package.__bootstrap__ = packed
    package.__first_line__ = sys.orig_argv[sys.orig_argv.index("-c") + 1]
    package.__getattr__ = _public_name
    sys.modules[ROOT] = package
    sys.meta_path.insert(0, importer)
    for name in "b", "d", "io", "zlib":
        vars(sys.modules["__main__"]).pop(name, None)


def start() -> None:
    """Become what the command line's argument says; does not return."""
    role = sys.argv[1] if len(sys.argv) > 1 else "main"
    entry: Any = __import__(f"{ROOT}._agent.{role}", fromlist=["main"])
    sys.exit(entry.main() if role == "storekeeper" else entry.main(b""))
