"""The agent's side of control groups: one for all its calls, where it may make groups.

Nothing depends on it: what the kernel refuses is left out, and said nowhere but in what
`Groups.controllers` lacks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from .._monitor import groups
from .._monitor.cgroups import Cgroups, read_fields, read_number, read_text
from .._monitor.groups import MEMORY, Parent
from .._monitor.proc import read_stat

_PROCESSES = "cgroup.procs"
_HANDED_ON = "cgroup.subtree_control"


class Hierarchy:
    """What is done to a control group hierarchy. Each raises `OSError` where it is refused."""

    def make(self, folder: str) -> None:
        """Make a group."""
        os.mkdir(folder, 0o700)

    def remove(self, folder: str) -> None:
        """Remove a group in which is nothing any more."""
        os.rmdir(folder)

    def write(self, folder: str, file: str, text: str) -> None:
        """Write to a file of a group; its files are there from the beginning."""
        descriptor = os.open(f"{folder}/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class Groups:
    """The group of all calls of this agent, in each hierarchy where one can be made.

    Args:
        cgroups: The groups that this process is in.
        session: The name of the agent's folder: `groups.name`.
        hierarchy: What is done to them.
        environ: Environment variables; with ``AFARM_GROUPS=0`` no groups are made.

    Attributes:
        parents: The groups below which slots make theirs.
        threads: How many processes and threads all calls may have; 0: any number.
    """

    def __init__(
        self, cgroups: Cgroups, session: str, hierarchy: Hierarchy | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:  # fmt: skip
        self._hierarchy = hierarchy or Hierarchy()
        self._name = groups.name(session)
        self._leaf = ""  # the agent's own group, in version 2
        self._left = ""  # the one it was in before
        self._handed_on = ""
        self._capacity = 0
        self._limit = 0
        self._looked_at = 0
        self.parents: list[Parent] = []
        self.threads = 0
        found = groups.own(cgroups) if environ.get("AFARM_GROUPS") != "0" else []
        for folder in dict.fromkeys(parent.folder for parent in found):
            here = [parent for parent in found if parent.folder == folder]
            with contextlib.suppress(OSError):
                self._remove_old(folder)
                self._make(folder, here)
        if "pids" in self.controllers:
            self._bound_threads(groups.most_threads(cgroups))

    @property
    def controllers(self) -> list[str]:
        """What calls are bounded with: of ``memory`` and ``pids``, those that could be had."""
        return [parent.controller for parent in self.parents]

    def _parent(self, controller: str) -> Parent | None:
        return next((each for each in self.parents if each.controller == controller), None)

    # --- making them

    def _make(self, folder: str, here: Sequence[Parent]) -> None:
        """Make the group of all calls below a group that this process is in."""
        names = " ".join(f"+{parent.controller}" for parent in here)
        unified = here[0].version == 2
        if unified and not self._hand_on(folder, here, names):
            return
        made = f"{folder}/{self._name}"
        self._hierarchy.make(made)
        try:
            if unified:
                self._hierarchy.write(made, _HANDED_ON, names)
            elif read_number(f"{made}/memory.use_hierarchy") == 0:
                # Before Linux 5.11 the limits of a group do not hold below it by themselves.
                self._hierarchy.write(made, "memory.use_hierarchy", "1")
        except OSError:
            self._hierarchy.remove(made)
            self._return()
            raise
        self.parents += [parent._replace(folder=made) for parent in here]

    def _hand_on(self, folder: str, here: Sequence[Parent], names: str) -> bool:
        """Have groups below this one (version 2) have controllers; return whether they have.

        That empties the group: this process goes into one of its own. Where others are in it,
        they, and so the group, are not ours to arrange.
        """
        there = read_text(f"{folder}/{_HANDED_ON}").split()
        if all(parent.controller in there for parent in here):
            return True
        if read_text(f"{folder}/{_PROCESSES}").split() != [str(os.getpid())]:
            return False
        leaf = f"{folder}/{self._name}{groups.AGENT}"
        self._hierarchy.make(leaf)
        self._leaf, self._left = leaf, folder
        try:
            self._hierarchy.write(leaf, _PROCESSES, "0")
            self._hierarchy.write(folder, _HANDED_ON, names)
        except OSError:
            self._return()
            raise
        self._handed_on = names.replace("+", "-")
        return True

    def _return(self) -> None:
        """Go back to where this process was before."""
        if not self._leaf:
            return
        leaf, self._leaf = self._leaf, ""
        with contextlib.suppress(OSError):
            if self._handed_on:
                self._hierarchy.write(self._left, _HANDED_ON, self._handed_on)
            self._hierarchy.write(self._left, _PROCESSES, "0")
        with contextlib.suppress(OSError):
            self._hierarchy.remove(leaf)

    def _bound_threads(self, most: int) -> None:
        parent = self._parent("pids")
        if parent is not None and most:
            with contextlib.suppress(OSError):
                self._hierarchy.write(parent.folder, "pids.max", str(most))
                self.threads = most

    # --- the memory of all calls

    def bound_memory(self, capacity: int) -> None:
        """Have the calls together use no more memory than the farm was told there is, in bytes.

        Not worth it where that is all the machine has: then that bounds the calls as well, and
        the kernel's victims are calls in any case (`supervisor`).
        """
        self._capacity = capacity
        self.follow(0)

    def follow(self, slots: int) -> None:
        """Let the bound be raised by the page cache that the calls have by now.

        Args:
            slots: How many there are.
        """
        parent = self._parent("memory")
        if parent is None or not self._capacity:
            return
        files = MEMORY[parent.version]
        usage = int(read_number(f"{parent.folder}/{files.usage}") or 0)
        worth = self._capacity // 64
        if self._limit and abs(usage - self._looked_at) < worth:
            return
        self._looked_at = usage
        cache = read_fields(f"{parent.folder}/memory.stat").get(files.cache, 0)
        limit = groups.ceiling_of_all(self._capacity, cache, slots)
        # A limit below what is there would keep this process waiting; see `groups.Ceiling`.
        if limit > usage + worth and abs(limit - self._limit) >= worth:
            try:
                self._hierarchy.write(parent.folder, files.limit, str(limit))
            except OSError:
                self._capacity = 0
            self._limit = limit

    # --- removing them

    def remove_slot(self, number: int) -> None:
        """Remove the groups of a slot whose processes are gone."""
        for folder in dict.fromkeys(parent.folder for parent in self.parents):
            self._remove(f"{folder}/{slot_name(number)}")

    def remove(self) -> None:
        """Remove all groups; the processes in them are gone."""
        for folder in dict.fromkeys(parent.folder for parent in self.parents):
            self._remove(folder)
        self.parents = []
        self._return()

    def _remove(self, folder: str) -> None:
        """Remove a group and those below it; what is left is removed by a later agent."""
        for path in groups_below(folder):
            with contextlib.suppress(OSError):
                self._hierarchy.remove(path)

    def _remove_old(self, folder: str) -> None:
        """Remove what agents have left that are dead. The kernel keeps groups with processes."""
        for name in os.listdir(folder):
            pid = groups.agent_of(name)
            if pid is not None and read_stat(pid) is None:
                self._remove(f"{folder}/{name}")


def slot_name(number: int) -> str:
    """Return what the group of a slot is called."""
    return f"slot-{number}"


def groups_below(folder: str) -> list[str]:
    """Return a group and all below it, the innermost first."""
    return [path for path, _, _ in os.walk(folder, topdown=False)]
