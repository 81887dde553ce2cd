"""How things stand: does the host answer, how did the last runs end, what did the last verify find."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kosmos_installer import console, record
from kosmos_installer.outcome import duration
from kosmos_installer.record import Past
from kosmos_installer.targets import Target

LAST_RUNS = 5
_SECONDS = 3.0

Probe = Callable[[Target], str]


@dataclass(frozen=True)
class Situation:
    """hosts: (target, its answer); the answer is empty when it gave none.  runs: the newest first."""

    name: str
    hosts: tuple[tuple[Target, str], ...]
    runs: tuple[Past, ...]
    verified: Past | None

    @property
    def reachable(self) -> bool:
        """Whether every host answers."""
        return all(answer for _, answer in self.hosts)

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "hosts": [
                {"name": target.name, "address": target.key, "reachable": bool(answer), "answer": answer}
                for target, answer in self.hosts
            ],
            "runs": [{**_run(past), "record": str(past.folder)} for past in self.runs],
            "last_verify": _verify(self.verified),
        }

    def text(self, now: datetime) -> str:
        """For a person."""
        hosts = [
            (f"  {target.name}", target.key, f"answers: {answer}" if answer else "does not answer")
            for target, answer in self.hosts
        ]
        parts = [
            f"Appliance {self.name}",
            "",
            "Hosts",
            *(_rows(hosts) or ["  none in group `appliance`"]),
            "",
            "Last runs",
        ]
        runs = [(f"  {_ago(past, now)}", past.verb, _ended(past)) for past in self.runs]
        parts += _rows(runs) or ["  none; begin with: kosmos-install preflight"]
        parts += ["", "Last verify", f"  {_verified(self.verified, now)}"]
        return "\n".join(parts)


def look(name: str, targets: Sequence[Target], runs: Path, probe: Probe | None = None) -> Situation:
    """Knock at every host and read the records of this appliance."""
    ask = probe or knock
    past = tuple(one for one in record.history(runs) if one.name == name)
    verified = next((one for one in past if one.verb == "verify" and one.summary), None)
    return Situation(name, tuple((target, ask(target)) for target in targets), past[:LAST_RUNS], verified)


def knock(target: Target) -> str:
    """The first words of the host's SSH server; empty when it does not answer within seconds."""
    if target.address == "local":
        return "this machine"
    with suppress(OSError), socket.create_connection((target.address, target.port), timeout=_SECONDS) as connection:
        connection.settimeout(_SECONDS)
        banner = connection.recv(255).decode(errors="replace").split("\n")[0].strip()
        return banner if banner.startswith("SSH-") else ""
    return ""


def _run(past: Past) -> dict[str, Any]:
    summary = past.summary
    return {
        "utc": past.utc,
        "verb": past.verb,
        "ended": bool(summary),
        "exit_code": summary.get("exit_code"),
        "changed": summary.get("changed"),
        "seconds": summary.get("seconds"),
    }


def _ended(past: Past) -> str:
    summary = past.summary
    if not summary:
        return "was cut off, or still runs"
    took = duration(float(summary.get("seconds", 0)))
    if summary.get("exit_code") != 0:
        cause = (summary.get("diagnosis") or {}).get("cause", "")
        return f"{summary.get('exit_name', 'failed')} after {took}: {cause}".rstrip(": ")
    what = "would change" if summary.get("check") else "changed"
    return f"ok in {took}, {what} {summary.get('changed', 0)}"


def _verify(past: Past | None) -> dict[str, Any] | None:
    if past is None:
        return None
    checks = past.summary.get("checks", {})
    failed = [row.get("id") for row in checks.get("results", []) if row.get("status") == "failed"]
    return {
        **_run(past),
        "counts": checks.get("counts", {}),
        "failed": failed,
        "report": str(past.folder / "report.html"),
    }


def _verified(past: Past | None, now: datetime) -> str:
    data = _verify(past)
    if past is None or data is None:
        return "never; run: kosmos-install verify"
    counts = data["counts"]
    total = counts.get("total", 0) - counts.get("skipped", 0)
    words = f"{_ago(past, now)}: {counts.get('passed', 0)} of {total} checks passed"
    failed = f"; failed: {', '.join(data['failed'][:5])}" if data["failed"] else ""
    return f"{words}{failed}\n  {data['report']}"


def _ago(past: Past, now: datetime) -> str:
    seconds = (now - datetime.strptime(past.utc, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds()
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return console.table(rows[0], rows[1:]).splitlines() if rows else []
