"""The import hook of workers: what their environment lacks, they ask the farm for.

What a function imports cannot always be known without running it. Where an environment
was shipped, this finder stands last in ``sys.meta_path``: nothing else here has the module.
The call waits for the answer in its import, and goes on; a module that the farm lacks as
well is missing as it would be anywhere.

Only workers ask, and only while a call runs. A template does not: what fails there fails
again in a worker, and the many modules that libraries merely try when they are imported
would each cost a round trip before the first call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from .._wire.messages import Missing, Run, decode, encode
from .inbox import Inbox
from .internal import Found
from .system import put_first

# No module has a longer name; a message has no room for any.
_LONGEST_NAME = 500


class Hook:
    """A finder that asks the agent, which asks the farm.

    Attributes:
        wanted: Whether this process belongs to an environment that was shipped.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._run: Run | None = None
        self._inbox: Inbox
        self._worker = 0  # the process that may ask
        self._answers: dict[str, str] = {}
        self._entries: list[str] = []  # of sys.path, that were added here
        self._programs = ""  # the folder of the last environment that was added
        self._unanswered = ""  # a name that nobody waits for any more

    def begin(self, run: Run, inbox: Inbox) -> None:
        """Ask for what a call misses, from now on."""
        self._run, self._inbox, self._worker = run, inbox, os.getpid()
        if sys.meta_path[-1:] != [self]:
            sys.meta_path[:] = [*(each for each in sys.meta_path if each is not self), self]
        if self._entries:
            # After a call, a process that serves many is as it was before the first one.
            sys.path.extend(entry for entry in self._entries if entry not in sys.path)
            put_first(os.environ, self._programs)

    def end(self) -> None:
        """Ask for nothing more, and leave nothing in the inbox that was an answer."""
        self._run = None
        # Other threads take their turn before they look whether there is a call, so that a
        # call that never asked need not take one: that takes 5 us.
        if self._inbox.busy or self._unanswered:
            with self._inbox.turn() as free:
                if free and self._unanswered:
                    self._wait(self._unanswered)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that the farm had to provide; ``None`` if it cannot."""
        if name not in self._answers:
            self._ask(name)
        return self._find(name, path) if self._answers.get(name) else None

    def take(self, found: Found) -> None:
        """Let modules be imported from the environment that an answer names."""
        if found.folder:
            self._add(found.folder)
        # Last: from here on, other threads look for it where it is now.
        self._answers[found.name] = found.folder

    def _add(self, folder: str) -> None:
        """Import from an environment, too, and start programs in it."""
        import site

        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        before = set(sys.path)
        # As the interpreter of that environment does when it starts.
        site.addsitedir(os.path.join(folder, "lib", python, "site-packages"))
        self._entries += [entry for entry in sys.path if entry not in before]
        # What is started from here on has the module, too.
        self._programs = os.path.join(folder, "bin")
        put_first(os.environ, self._programs)
        sys.executable = os.path.join(self._programs, "python")

    def _ask(self, name: str) -> None:
        """Ask for a module, and wait; other threads of the call wait for their turn."""
        # The process first: the child of a fork must neither use this socket nor wait for a
        # thread that it does not have.
        if os.getpid() != self._worker or self._run is None:
            return
        if name.partition(".")[0] in sys.stdlib_module_names:
            return  # of another system, or of another version
        if len(name) > _LONGEST_NAME or not name.isprintable():
            return
        found = None
        with self._inbox.turn() as free:
            run = self._run
            if not free or run is None or name in self._answers:
                return
            try:
                if self._unanswered:
                    self._wait(self._unanswered)
                self._unanswered = name
                missing = Missing(run.invocation, run.attempt, run.environment, name)
                self._inbox.send(encode(missing))
                found = self._wait(name)
            except ConnectionError:
                return  # the agent is gone, and this process in a moment
        if found is not None:
            self.take(found)

    def _wait(self, name: str) -> Found | None:
        """Return the answer for a name; ``None`` if the agent goes away.

        A signal handler of the call's may end the wait by raising something.
        """
        while (frame := self._inbox.receive_kind(Found.kind)) is not None:
            found = decode(frame)
            assert isinstance(found, Found)
            if found.name == name:
                break
        else:
            return None
        self._unanswered = ""
        return found

    def _find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is None and path is not None:
            # Its package is another distribution's, or a part of it had stayed behind.
            above = name.split(".")[:-1]
            places = [os.path.join(entry, *above) for entry in self._entries]
            spec = PathFinder.find_spec(name, places)
        return spec


hook = Hook()
