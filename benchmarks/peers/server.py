"""An OpenSSH server of our own on a loopback port, for one measurement."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ..question import CannotMeasure

CIPHER = "aes128-gcm@openssh.com"


class Server:
    """A server with keys and a configuration of its own, in a temporary folder.

    Attributes:
        port: Where it listens on 127.0.0.1.
        alias: The host's name in the client configuration.
        config: The client configuration that knows it.
        key: The client's private key.
        known_hosts: A file with the server's key.
    """

    alias = "afarm-bench"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="afarm-sshd-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.config = self._folder / "config"
        self.key = self._folder / "key"
        self.known_hosts = self._folder / "known_hosts"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            CannotMeasure: If there is no OpenSSH server here, or it does not start.
        """
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None or shutil.which("ssh-keygen") is None:
            raise CannotMeasure("no OpenSSH server here (Debian: apt-get install openssh-server)")
        if os.getuid() == 0:
            # Its child without privileges lives there; Debian makes it when the service starts.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)],
                check=True,
            )
        shutil.copy(self._folder / "key.pub", self._folder / "authorized_keys")
        self.port = _free_port()
        self._write_configuration()
        self._process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(self._folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("wb"),
        )
        self._wait_listening()

    def _write_configuration(self) -> None:
        folder = self._folder
        (folder / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
        )
        public = (folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")
        self.config.write_text(
            f"""Host {self.alias}
  HostName 127.0.0.1
  Port {self.port}
  User {getpass.getuser()}
  IdentityFile {self.key}
  IdentitiesOnly yes
  UserKnownHostsFile {self.known_hosts}
  StrictHostKeyChecking yes
  Ciphers {CIPHER}
"""
        )

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        log = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        raise CannotMeasure(f"sshd does not start: {log[-1] if log else 'no message'}")

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
