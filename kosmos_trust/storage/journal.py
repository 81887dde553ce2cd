"""What was begun and what is done, written ahead and flushed: one JSON object a line.

A line without its newline is what a power cut leaves; it is as if it had never been written. Any other unreadable
line is an error: nobody guesses what state a disk is in. Values are numbers, booleans and short words; keys never.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kosmos_trust.durable import private_folder, sync_folder

from .errors import JournalError

Fact = str | int | bool
Phase = Literal["begun", "done"]
MAX_BYTES = 1 << 20
MAX_FACT_LETTERS = 200


@dataclass(frozen=True)
class Entry:
    """One line: step, phase (begun or done), seconds since 1970 (UTC), and facts."""

    step: str
    phase: Phase
    at: int
    facts: dict[str, Fact] = field(default_factory=dict)


class Journal:
    """The journal of one volume. Reading it never writes; each `begun` and `done` is on the disk when it returns."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first. Raises JournalError when a line is not what this class writes."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError("cannot be read", where=str(self.path), why=error.strerror or str(error)) from error
        if len(raw) > MAX_BYTES:
            raise JournalError(f"is longer than {MAX_BYTES} bytes", where=str(self.path), cure="look at it by hand")
        *lines, _torn = raw.split(b"\n")
        return [self._entry(number, line) for number, line in enumerate(lines, start=1)]

    def _entry(self, number: int, line: bytes) -> Entry:
        try:
            one = json.loads(line)
            if one["phase"] not in ("begun", "done") or not isinstance(one["facts"], dict):
                raise ValueError("not an entry")
            return Entry(str(one["step"]), one["phase"], int(one["at"]), one["facts"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise JournalError(
                f"line {number} is not an entry", where=str(self.path),
                cure="restore the file from a backup, or compare it with `cryptsetup luksDump` and mend the line",
            ) from None  # fmt: skip

    def begun(self, step: str, **facts: Fact) -> None:
        """Note that a step is about to change something. Raises JournalError when that cannot be made durable."""
        self._append(step, "begun", facts)

    def done(self, step: str, **facts: Fact) -> None:
        """Note that a step was carried out and proved. Raises JournalError when that cannot be made durable."""
        self._append(step, "done", facts)

    def last(self, step: str, phase: Phase | None = None) -> Entry | None:
        """Return the newest entry of a step, of any phase unless one is named."""
        found = [one for one in self.entries() if one.step == step and phase in (None, one.phase)]
        return found[-1] if found else None

    def _append(self, step: str, phase: Phase, facts: dict[str, Fact]) -> None:
        long = [name for name, value in facts.items() if len(str(value)) > MAX_FACT_LETTERS]
        if long:
            raise JournalError(f"the fact {long[0]} is too long", where=str(self.path))
        entry = {"step": step, "phase": phase, "at": int(self.clock()), "facts": facts}
        line = json.dumps(entry, sort_keys=True).encode() + b"\n"
        try:
            private_folder(self.path.parent)
            fresh = not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path, flags, 0o600)
            try:
                end = self._whole_lines(descriptor)
                os.ftruncate(descriptor, end)
                os.lseek(descriptor, end, os.SEEK_SET)
                if os.write(descriptor, line) != len(line):
                    raise OSError(28, "only a part of the line could be written")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if fresh:
                sync_folder(self.path.parent)
        except OSError as error:
            raise JournalError(
                "cannot be written, so nothing is done", where=str(self.path), why=error.strerror or str(error),
                cure="free space on that file system and run again",
            ) from error  # fmt: skip

    @staticmethod
    def _whole_lines(descriptor: int) -> int:
        """Return where the last whole line ends: what follows was torn by a cut."""
        size = os.fstat(descriptor).st_size
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, min(size, MAX_BYTES)).rfind(b"\n") + 1 if size else 0
