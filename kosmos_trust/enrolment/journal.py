"""What an enrolment is about to do, written and synced before it does it; the next run reads where it stood.

One file of JSON lines per agent, only ever appended. A run that was cut leaves an open line; the next goes on there.
Serials, times and reasons only: nothing here is secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from ..pki.errors import StoreError
from ..pki.store import append_line, read_lines


class Step(StrEnum):
    """What the line before an act says. The acts follow in this order."""

    BEGIN = "begin"  # a key is being made
    ASKING = "asking"  # the authority is being asked: an answer may be lost
    PENDING = "pending"  # the authority wants a person's approval first
    ISSUED = "issued"  # the certificate is on disk, to become a generation
    FLIPPING = "flipping"  # the link is being changed, the service told
    ROLLING_BACK = "rolling_back"  # the service refused: the link goes back
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    ABANDONED = "abandoned"
    RETIRED = "retired"  # an older certificate was revoked


CLOSED = frozenset({Step.DONE, Step.ROLLED_BACK, Step.ABANDONED, Step.RETIRED})


@dataclass(frozen=True)
class Line:
    """One line: step, run it belongs to, aware time, and what the step needs (serials, request id, reason)."""

    step: Step
    run: str
    at: datetime
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Journal:
    """The journal of one agent. `ledger` hears every line after it is on disk."""

    path: Path
    clock: Callable[[], datetime]
    ledger: Callable[[Mapping[str, str]], None] = lambda _: None

    def lines(self) -> list[Line]:
        """Return all lines, oldest first. Raises StoreError for a damaged file."""
        found = []
        for number, text in enumerate(read_lines(self.path), start=1):
            try:
                line = json.loads(text)
                step, run = Step(line.pop("step")), str(line.pop("run"))
                at = datetime.fromisoformat(line.pop("at"))
                found.append(Line(step, run, at, {str(key): str(value) for key, value in line.items()}))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"{self.path}: line {number} is damaged ({type(error).__name__}); move the file away: "
                    "the installed certificate stays in use, and the next run begins a new journal"
                ) from error
        return found

    def open_line(self) -> Line | None:
        """Return the line at which a run was cut, None when the last run ended."""
        lines = [line for line in self.lines() if line.step is not Step.RETIRED]
        return lines[-1] if lines and lines[-1].step not in CLOSED else None

    def note(self, step: Step, run: str, **facts: str) -> Line:
        """Write a line ahead of its act, durably. Raises StoreError; then the act must not happen."""
        line = Line(step, run, self.clock(), facts)
        record = {"step": str(step), "run": run, "at": line.at.isoformat(), **facts}
        append_line(self.path, json.dumps(record, ensure_ascii=True).encode())
        self.ledger(record)
        return line

    def superseded(self) -> list[tuple[str, datetime]]:
        """Return serials whose successor is in place since when, and which were not revoked yet."""
        lines = self.lines()
        gone = {line.facts["serial"] for line in lines if line.step is Step.RETIRED}
        ends = [(line.facts.get("old", ""), line.at) for line in lines if line.step is Step.DONE]
        return [(serial, at) for serial, at in ends if serial and serial not in gone]

    def rolled_back(self) -> str | None:
        """Return the serial that the service refused last, None when a later run ended well."""
        ends = [line for line in self.lines() if line.step in (Step.DONE, Step.ROLLED_BACK)]
        return ends[-1].facts.get("serial") if ends and ends[-1].step is Step.ROLLED_BACK else None
