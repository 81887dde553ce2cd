"""The value objects that a check passes through: host, finding, result."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Completed, execute

T = TypeVar("T")

#: Bytes that a probe reads from one file at most: configuration is small, a log that grew is not configuration.
READ_LIMIT = 4 * 1024 * 1024
CHUNK = 65536
#: Characters of a finding or of evidence that travel back to the controller.
SHOWN_LIMIT = 600


class ProbeError(Exception):
    """A probe could not look. The text says what and where; it becomes the evidence of a failed check."""


@dataclass(frozen=True)
class Found:
    """What a probe found: a JSON value (None = absent) and from where it was read."""

    value: Any
    evidence: str


def run_command(argv: Sequence[str], timeout_seconds: float) -> Completed:
    """Run `argv` as `execute` does. Raises ProbeError when the command does not end in time."""
    try:
        return execute(argv, timeout_seconds)
    except TimeoutError as error:
        raise ProbeError(str(error)) from error


@dataclass
class Host:
    """The machine as the probes see it.

    `root` is the folder that stands for `/` (a fixture in tests), `run` starts a command, `now` gives seconds since
    the epoch, `reference_time` is the controller's clock at the start of the batch. `memo` keeps what is read once.
    """

    root: Path
    now: Callable[[], float]
    run: Callable[[Sequence[str], float], Completed] = run_command
    reference_time: float | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def path(self, absolute: str) -> Path:
        """Return where the absolute path lies under the root."""
        return self.root / absolute.lstrip("/")

    def once(self, key: Any, read: Callable[[], T]) -> T:
        """Return the value kept under `key`, reading it the first time."""
        if key not in self.memo:
            self.memo[key] = read()
        value: T = self.memo[key]
        return value

    def text(self, absolute: str) -> str | None:
        """Return the text of a file, or None when it does not exist. Raises ProbeError when it is too big."""
        data = self.data(absolute)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, absolute: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return the bytes of a file, or None when it does not exist. Raises ProbeError when it is too big."""
        try:
            data = bytearray()
            with self.path(absolute).open("rb", buffering=0) as stream:
                # In small pieces: /proc allocates what is asked for.
                while len(data) <= limit and (piece := stream.read(CHUNK)):
                    data += piece
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(data) > limit:
            raise ProbeError(f"{absolute} is larger than {limit} bytes")
        return bytes(data)

    def names(self, absolute: str) -> list[str] | None:
        """Return the sorted names in a folder, or None when it does not exist."""
        try:
            return sorted(os.listdir(self.path(absolute)))  # noqa: PTH208 - names, not paths, are wanted
        except (FileNotFoundError, NotADirectoryError):
            return None

    def command(self, argv: Sequence[str], timeout_seconds: float = 30.0) -> Completed:
        """Run a command once per batch: two checks that ask the same share the answer."""
        return self.once(("command", tuple(argv)), lambda: self.run(argv, timeout_seconds))


@dataclass(frozen=True)
class Arg:
    """One argument of a probe. `choices` may be empty (anything goes); `required` has no default."""

    name: str
    help: str
    type: str = "str"
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()


Probe = Callable[[Host, Mapping[str, Any]], Found]


@dataclass(frozen=True)
class Kind:
    """One probe kind: its function, what it tells, its arguments, and whether it reads only files under the root."""

    probe: Probe
    help: str
    args: tuple[Arg, ...]
    rooted: bool
