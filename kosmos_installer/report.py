"""What the checks found, for people (report.html, one file that needs nothing else) and for programs (report.json)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from kosmos_installer import __version__
from kosmos_installer.outcome import Outcome, by_role, counts_of, duration
from kosmos_installer.plan import Verb
from kosmos_installer.record import Record
from kosmos_installer.results import Check

_ORDER = {"failed": 0, "waived": 1, "passed": 2, "skipped": 3}
_SEVERITY = {"critical": 0, "high": 1, "medium": 2, "low": 3}


@dataclass(frozen=True)
class Section:
    """The checks of one role, the bad ones first."""

    role: str
    counts: dict[str, int]
    checks: tuple[Check, ...]


def write(record: Record, outcome: Outcome, now: datetime) -> str:
    """Write both files into the record; give back the path of report.html."""
    record.write("report.json", as_data(outcome, now))
    return str(record.write_text("report.html", as_html(outcome, now)))


def as_data(outcome: Outcome, now: datetime) -> dict[str, Any]:
    """The report for programs."""
    checks = outcome.state.checks
    return {
        "report": "kosmos/checks/v1",
        "appliance": outcome.spec.name,
        "verb": outcome.spec.verb.value,
        "hosts": list(outcome.hosts),
        "made": now.isoformat(timespec="seconds"),
        "version": __version__,
        "passed": not outcome.failed_checks and outcome.diagnosis is None,
        "counts": counts_of(checks),
        "roles": {section.role: section.counts for section in sections(checks)},
        "checks": [check.data() for check in checks],
    }


def sections(checks: tuple[Check, ...]) -> list[Section]:
    """The checks by role; within a role the failed ones first, then by severity."""

    def rank(check: Check) -> tuple[int, int, str]:
        return _ORDER[check.status], _SEVERITY.get(check.severity, 9), check.id

    return [
        Section(role, counts_of(members), tuple(sorted(members, key=rank))) for role, members in by_role(checks).items()
    ]


def verdict(outcome: Outcome) -> str:
    """The end of the sentence that begins with the appliance's name."""
    if outcome.failed_checks:
        return "is not fit yet" if outcome.spec.verb is Verb.PREFLIGHT else "is not as it should be"
    if outcome.diagnosis is not None:
        return "could not be examined completely"
    return "is fit for the appliance" if outcome.spec.verb is Verb.PREFLIGHT else "is as it should be"


def as_html(outcome: Outcome, now: datetime) -> str:
    """The report for people. Everything from the host is escaped; the page loads nothing and runs no script."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = _plain
    template = Path(__file__).with_suffix(".html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        outcome=outcome,
        verdict=verdict(outcome),
        sections=sections(outcome.state.checks),
        counts=counts_of(outcome.state.checks),
        failed=outcome.failed_checks,
        made=now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        took=duration(outcome.seconds),
        version=__version__,
    )


def _plain(value: Any) -> str:
    """A found or needed value: lists one entry a line, everything else as text."""
    if value is None:
        return "(nothing)"
    if isinstance(value, list):
        return "\n".join(_plain(item) for item in value) or "(empty)"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "(empty)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "(empty)"
