"""A real OpenSSH server for tests: own port, keys and configuration, as whoever runs them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def missing() -> str:
    """Return why no server can be started here, or nothing."""
    if SSHD is None:
        return "there is no sshd here (Debian: openssh-server)"
    if shutil.which("ssh-keygen") is None:
        return "there is no ssh-keygen here (Debian: openssh-client)"
    shell = pwd.getpwuid(os.getuid()).pw_shell
    if os.path.basename(shell) in ("nologin", "false"):
        return f"the account that runs the tests may not log in (its shell is {shell})"
    return ""


@dataclass
class Sshd:
    """A running server and what a client needs to trust it.

    Attributes:
        folder: Holds its keys, configuration and log.
        port: On 127.0.0.1.
        process: The listening server.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        """A client configuration in which the server is the host ``sshd``."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The file that vouches for its host key."""
        return self.folder / "known_hosts"

    @property
    def log(self) -> str:
        """What the server has to say."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it, and the sessions it serves."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def user() -> str:
    """Return the name of whoever runs this."""
    return pwd.getpwuid(os.getuid()).pw_name


def start(folder: Path, *lines: str) -> Sshd:
    """Start a server.

    Args:
        folder: An empty one, for its files.
        lines: Of its configuration, in front of the others: the first of a kind counts.
    """
    assert SSHD is not None
    for name in ("host_key", "id"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name],
            check=True,
        )
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    if os.geteuid() == 0:  # where it parts with its privileges; made by the system's own unit
        with contextlib.suppress(FileExistsError):
            os.makedirs("/run/sshd", mode=0o755)
    for _ in range(20):
        port = _free_port()
        _configure(folder, port, lines)
        with open(folder / "log", "ab") as log:
            process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", folder / "sshd_config"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        server = Sshd(folder, port, process)
        if _answers(server):
            return server
        server.stop()
    raise AssertionError(f"sshd does not start: {server.log}")


def _configure(folder: Path, port: int, lines: tuple[str, ...]) -> None:
    own = "\n".join(lines)
    (folder / "sshd_config").write_text(
        f"{own}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\n"
    )
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "ssh_config").write_text(
        f"Host sshd\n  HostName 127.0.0.1\n  Port {port}\n  User {user()}\n"
        f"  IdentityFile {folder}/id\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _answers(server: Sshd) -> bool:
    """Return whether it comes to answer; not, if somebody took its port first."""
    deadline = time.monotonic() + 20
    while server.process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock,
        ):
            if sock.recv(4) == b"SSH-":
                return True
        time.sleep(0.01)
    return False
