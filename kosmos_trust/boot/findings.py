"""What was looked at and what was found; all of it is collected, then there is one verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One rule: a stable id, what it asks, what was found, what is needed, and the cure when `passed` is False."""

    id: str
    what: str
    passed: bool
    found: str
    needed: str
    cure: str


@dataclass(frozen=True)
class Verdict:
    """All findings on one subject."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule is kept; no finding at all is no pass."""
        return bool(self.findings) and not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The rules that are broken."""
        return tuple(one for one in self.findings if not one.passed)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON data."""
        return {"subject": self.subject, "passed": self.passed, "findings": [asdict(one) for one in self.findings]}

    def lines(self) -> Iterable[str]:
        """Yield the verdict for people: a line per rule, three more for each that is broken."""
        yield f"{self.subject}: {'passed' if self.passed else f'REFUSED, {len(self.failures)} rules broken'}"
        for one in self.findings:
            yield f"  {'ok    ' if one.passed else 'BROKEN'} {one.id}: {one.what}"
            if not one.passed:
                yield from (f"         {label} {text}" for label, text in
                            (("found: ", one.found), ("needed:", one.needed), ("cure:  ", one.cure)))  # fmt: skip
