"""Reach the machine by the ssh client: its configuration, one command, an interactive session, the wait for it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import KosmosError

from .recipe import OPERATOR


def config_text(alias: str, port: int, key: Path, known_hosts: Path) -> str:
    """Return the ssh_config of one machine; ssh, scp, rsync and Ansible all take it with -F."""
    return f"""Host {alias}
    HostName 127.0.0.1
    Port {port}
    User {OPERATOR}
    IdentityFile {key}
    IdentitiesOnly yes
    HostKeyAlias {alias}
    UserKnownHostsFile {known_hosts}
    StrictHostKeyChecking yes
    ConnectTimeout 30
    ServerAliveInterval 15
    ServerAliveCountMax 4
    LogLevel ERROR
"""


def remote_command(words: Sequence[str], *, root: bool = False) -> str:
    """Return what the remote shell gets: one word is a shell line as it stands, more words are quoted each."""
    line = words[0] if len(words) == 1 else shlex.join(words)
    return f"sudo -n -- sh -c {shlex.quote(line)}" if root else line


def speaks(port: int, timeout_seconds: float) -> bool:
    """Tell whether an SSH server greets at 127.0.0.1:`port`; far lighter on an emulated machine than a login."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_seconds) as link:
            link.settimeout(timeout_seconds)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


@dataclass(frozen=True)
class Ssh:
    """The way into one machine."""

    config: Path
    alias: str

    def argv(self, *words: str, root: bool = False) -> list[str]:
        """Return the ssh command line; without words it is an interactive login."""
        base = ["ssh", "-F", str(self.config)]
        return [*base, "-T", self.alias, "--", remote_command(words, root=root)] if words else [*base, self.alias]

    def run(
        self, *words: str, root: bool = False, stdin: str | None = None, timeout_seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return exit code and output; 255 means that ssh itself failed.

        Raises `KosmosError` when it has not ended after `timeout_seconds`.
        """
        try:
            return subprocess.run(
                self.argv(*words, root=root),
                input=stdin or "",
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_seconds,
            )
        except subprocess.TimeoutExpired:
            raise KosmosError(
                f"A command in {self.alias} did not end in {timeout_seconds:.0f} seconds",
                where=" ".join(words)[:200],
                cure="look at the machine: kosmos-install lab ssh; on a busy computer, wait until it is quieter",
            ) from None

    def become(self, *words: str, root: bool = False) -> None:
        """Replace this process by ssh, so that the terminal, signals and the exit code are its own."""
        os.execvp("ssh", self.argv(*words, root=root))  # noqa: S606 - no shell is wanted
