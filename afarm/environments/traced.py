"""Run by `first_use` in a process of its own: imports modules and notes which files that reads.

A script: it imports nothing of afarm, which would read files of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

_WRITING = os.O_WRONLY | os.O_RDWR


class Trace:
    """The files that were read so far, in order; an audit hook."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self._extension = ""  # the extension module that is being loaded
        self._before: dict[str, list[str]] = {}
        self._busy = False

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        """Note a file that is opened to be read, or loaded as an extension module."""
        if self._busy or event not in ("open", "import"):
            return
        name, place, flags = arguments[:3]
        if event == "import":
            if isinstance(place, str) and place:
                self._note(place)
                self._extension = place
        elif isinstance(name, str) and isinstance(flags, int) and not flags & _WRITING:
            self._note(name)

    def order(self) -> list[str]:
        """Return the files: libraries before the extension module that brought them."""
        self._look_at_libraries()
        return [file for first in self.files for file in (*self._before.get(first, ()), first)]

    def _note(self, path: str) -> None:
        self._look_at_libraries()
        self.files.setdefault(path)

    def _look_at_libraries(self) -> None:
        """Find what the loader has mapped since an extension module began to be loaded.

        It tells nobody which libraries it reads.
        """
        extension, self._extension = self._extension, ""
        if not extension:
            return
        known = {*self.files, *(file for found in self._before.values() for file in found)}
        self._before[extension] = [file for file in self._mapped() if file not in known]

    def _mapped(self) -> list[str]:
        self._busy = True
        try:
            with open("/proc/self/maps", errors="surrogateescape") as maps:
                lines = [line.rstrip("\n").split(None, 5) for line in maps]
        except OSError:
            return []
        finally:
            self._busy = False
        return list(dict.fromkeys(line[5] for line in lines if len(line) > 5 and ".so" in line[5]))


def main() -> None:
    """Import what the first argument names; write the order into the file that it names."""
    target, path, modules = json.loads(sys.argv[1])
    sys.path[:] = path
    sys.argv[1:] = []
    trace = Trace()
    sys.addaudithook(trace.hook)
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as exc:  # modules raise what they like; what was read was read
            print(f"{name}: {exc!r}", file=sys.stderr)
    order = trace.order()
    with open(target, "w", errors="surrogateescape") as out:
        json.dump(order, out)


if __name__ == "__main__":
    main()
