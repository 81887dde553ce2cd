"""The one door through which this package runs other programs: no shell, no input, a time limit, no secret in argv."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .errors import CommandError

PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: dracut takes 16 seconds on a fast machine, some minutes on a slow and busy one.
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Done:
    """How a program ended: its exit code (127 not installed, 124 took too long) and what it said."""

    code: int
    stdout: str
    stderr: str


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(self, argv: Sequence[str | Path]) -> Done:
        """Return how it ended; never raise for a program that fails."""


def run(argv: Sequence[str | Path]) -> Done:
    """Run `argv` in the C locale, with root's home and a umask that keeps what it writes to root."""
    environment = {"PATH": PROGRAM_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
    try:
        done = subprocess.run(
            [os.fspath(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=TIMEOUT_SECONDS, env=environment, check=False, umask=0o077,
        )  # fmt: skip
    except FileNotFoundError:
        return Done(127, "", f"{argv[0]} is not installed")
    except subprocess.TimeoutExpired:
        return Done(124, "", f"it did not end within {TIMEOUT_SECONDS} seconds")
    return Done(done.returncode, done.stdout, done.stderr)


def must(run: Run, argv: Sequence[str | Path], what: str, cure: str) -> str:
    """Return what a program says on standard output. Raises CommandError with its last words when it fails."""
    done = run(argv)
    if done.code != 0:
        last = " / ".join((done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-3:])
        raise CommandError(what, where=os.fspath(argv[0]), why=f"exit code {done.code}: {last}", cure=cure)
    return done.stdout
