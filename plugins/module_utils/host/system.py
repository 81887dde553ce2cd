"""How this package asks the host: run a program, read a file, and say what the host refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Where programs are found. A login PATH of an ordinary user lacks the sbin folders.
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HostError(Exception):
    """Something on the host refuses. `reason` is a stable word for programs, `cure` a sentence for people."""

    def __init__(self, message: str, *, reason: str, cure: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.cure = cure


@dataclass(frozen=True)
class Completed:
    """What a program left behind. `rc` is None when it is not installed."""

    rc: int | None
    stdout: str
    stderr: str


def execute(argv: Sequence[str], timeout_seconds: float, env: Mapping[str, str] | None = None) -> Completed:
    """Run `argv` without a shell, without standard input, in the C locale.

    Raises TimeoutError, with a text for people, when the program does not end in time.
    """
    environment = {"PATH": PROGRAM_PATH, "LC_ALL": "C", "LANG": "C", "HOME": "/root"} | dict(env or {})
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        return Completed(None, "", f"{argv[0]}: not installed")
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"`{' '.join(argv)}` did not finish within {timeout_seconds:g} s") from error
    return Completed(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Done:
    """How a program ended that we need. `rc` is 127 when it is not installed, 124 when it took too long."""

    rc: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Both streams, for messages."""
        return f"{self.stdout}\n{self.stderr}".strip()


Run = Callable[..., Done]


def run(argv: Sequence[str], *, timeout_seconds: float = 60, env: Mapping[str, str] | None = None) -> Done:
    """Run `argv` as `execute` does; whatever happens is an exit code, as a shell and timeout(1) would give it."""
    try:
        done = execute(argv, timeout_seconds, env)
    except TimeoutError as error:
        return Done(124, "", str(error))
    return Done(127 if done.rc is None else done.rc, done.stdout, done.stderr)


def read_text(path: Path) -> str | None:
    """Return the text of a file, or None when there is none."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
