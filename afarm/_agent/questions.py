"""Modules that calls miss: the farm is asked once for each, and all who wait are told.

The farm answers with the number of an environment that has all that the first one has, and
the module. It is built like any other, but no template is started in it: workers that run
add it to their search path.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .._wire.messages import Missing, Module, Notice, encode
from .internal import Found
from .loop import Loop
from .outbox import Outbox
from .pool import Pool, Worker

_Name = tuple[int, str]  # an environment's number, and a module


class Questions:
    """What was asked of the farm, and its answers for those who ask later.

    Args:
        loop: The agent's loop.
        outbox: What goes to the farm.
        pool: Returns the pool.
    """

    def __init__(self, loop: Loop, outbox: Outbox, pool: Callable[[], Pool]) -> None:
        self._loop = loop
        self._outbox = outbox
        self._pool = pool
        self._answers: dict[_Name, str] = {}  # the folder of an environment; "": none
        self._asked: dict[_Name, list[Worker]] = {}
        self._folders: dict[
            int, str
        ] = {}  # of providers that were decided on; "": it cannot be had
        self._building: dict[int, list[_Name]] = {}  # providers, and what waits for each

    def ask(self, worker: Worker, missing: Missing) -> None:
        """Answer a worker, now or when the farm has."""
        key = (worker.slot.template.key.environment, missing.name)
        folder = self._answers.get(key)
        if folder is not None:
            self._tell(worker, missing.name, folder)
        elif key in self._asked:
            self._asked[key].append(worker)
        else:
            self._asked[key] = [worker]
            self._outbox.send(
                encode(Missing(missing.invocation, missing.attempt, key[0], missing.name))
            )

    def answer(self, module: Module) -> None:
        """Take the farm's answer."""
        key = (module.environment, module.name)
        folder = self._folders.get(module.provider) if module.provider else ""
        if folder is not None:
            self._settle(key, folder)
        else:
            self._building.setdefault(module.provider, []).append(key)

    def expects(self, environment: int) -> bool:
        """Whether an environment was named in an answer."""
        return environment in self._building

    def decided(self, environment: int, executable: str, why: str) -> None:
        """Such an environment is ready, or cannot be had: ``why``."""
        folder = "" if why else os.path.dirname(os.path.dirname(executable))
        self._folders[environment] = folder
        waiting = self._building.pop(environment)
        if why:
            names = ", ".join(name for _, name in waiting)
            self._outbox.send(encode(Notice(30, f"{names} cannot be had: {why}")))
        for key in waiting:
            self._settle(key, folder)

    def _settle(self, key: _Name, folder: str) -> None:
        environment, name = key
        self._answers[key] = folder
        for worker in self._asked.pop(key, ()):
            self._tell(worker, name, folder)
        self._pool().spread(environment, Found(0, name, folder))

    def _tell(self, worker: Worker, name: str, folder: str) -> None:
        worker.channel.send(encode(Found(worker.number, name, folder)))
        self._loop.touch(worker.channel)
