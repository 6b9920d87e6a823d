"""Dask's distributed scheduler: a local cluster, or one that it starts over SSH."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .base import WORKERS, Peer, Wait
from .server import Server


class DaskPeer(Peer):
    """Two worker processes with one thread each, no dashboard."""

    def __init__(self, transport: str = "") -> None:
        self._over_ssh = transport == "ssh"
        self._server: Server | None = None
        self._cluster: Any = None
        self._client: Any = None
        self._remote: list[int] = []

    def open(self) -> None:
        from distributed import Client, LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if self._over_ssh:
            self._cluster = self._open_ssh()
        else:
            self._cluster = LocalCluster(
                n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
            )
        self._client = Client(self._cluster)
        self._client.wait_for_workers(WORKERS, timeout=60)
        if self._over_ssh:
            # Nannies first: they would start their workers again.
            self._remote = [
                *self._client.run(os.getpid, nanny=True).values(),
                *self._client.run(os.getpid).values(),
                self._client.run_on_scheduler(os.getpid),
            ]

    def _open_ssh(self) -> Any:
        from distributed import SSHCluster

        self._server = Server()
        self._server.start()
        options = {
            "port": self._server.port,
            "known_hosts": str(self._server.known_hosts),
            "client_keys": [str(self._server.key)],
        }
        return SSHCluster(
            ["127.0.0.1"] * (WORKERS + 1),
            connect_options=options,
            # It needs the same modules at the same place on every host.
            remote_python=f"env PYTHONPATH={os.getcwd()} {sys.executable}",
            worker_options={"nthreads": 1},
            scheduler_options={"port": 0, "dashboard": False},
        )

    def close(self) -> None:
        self._client.close()
        self._cluster.close(timeout=10)
        if self._server is not None:
            self._server.stop()
        # What it started over SSH lives on when the connection is closed, waiting for a
        # scheduler that is gone.
        for process in self._remote:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Wait:
        future = self._client.submit(fn, *args, pure=False)
        return lambda seconds: future.result(timeout=seconds)

    def call_all(self, fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
        futures = self._client.map(fn, arguments, pure=False)
        results: list[Any] = self._client.gather(futures)
        return results
