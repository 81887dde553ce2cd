"""The one door to other programs: arguments as a list, secrets through standard input only, streams kept apart."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import CommandError

PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PROGRAM_PATH, "LC_ALL": "C", "LANG": "C", "HOME": "/root"}
#: A key derivation on a slow machine takes seconds; a program that hangs must not hang an install for ever.
DEFAULT_TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True)
class Command:
    """One command as data. `ok` are the exit codes that mean success; `secret_output`: its streams never travel."""

    argv: tuple[str, ...]
    ok: tuple[int, ...] = (0,)
    secret_output: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str


class Run(Protocol):
    """Runs a command; `stdin` is handed over through a pipe. Raises CommandError unless the exit code is expected."""

    def __call__(self, command: Command, stdin: bytes | None = None) -> Done:
        """Run it and return how it ended."""


def run(command: Command, stdin: bytes | None = None) -> Done:
    """Run a command in the C locale. Raises CommandError when it is missing, hangs, or ends with another code."""
    program = command.argv[0]
    try:
        done = subprocess.run(
            command.argv, input=stdin or b"", capture_output=True, timeout=command.timeout_seconds, env=ENVIRONMENT,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise CommandError(f"{program} is not installed", cure=f"install {package_of(program)}") from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"`{command}` did not end within {command.timeout_seconds:g} s") from None
    if done.returncode not in command.ok:
        told = "its output is kept back" if command.secret_output else _last_lines(done.stderr or done.stdout)
        raise CommandError(f"`{command}` ended with {done.returncode}", why=told)
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def package_of(program: str) -> str:
    """Return the Debian package that brings a program that we use."""
    packages = {
        "cryptsetup": "cryptsetup-bin", "systemd-cryptenroll": "systemd-cryptsetup", "mkfs.ext4": "e2fsprogs",
        "wipefs": "util-linux", "blkid": "util-linux", "lsblk": "util-linux", "sfdisk": "fdisk", "fstrim": "util-linux",
    }  # fmt: skip
    return f"the package {packages.get(program, program)}"


def names(commands: Sequence[Command]) -> list[str]:
    """Return commands as people type them."""
    return [str(command) for command in commands]


def _last_lines(raw: bytes) -> str:
    lines = [line.strip() for line in raw.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:600] or "it said nothing"
