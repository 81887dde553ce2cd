"""Evaluate a batch of checks on the machine this runs on, or on a fixture root."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.definition import complete
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.matchers import MatchError, matches
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import SHOWN_LIMIT, Found, Host, ProbeError
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes import KINDS
from ansible_collections.kosmos.appliance.plugins.module_utils.trust.eventlog import EventLogError
from ansible_collections.kosmos.appliance.plugins.module_utils.trust.tpm import TpmError

SHOWN_ITEMS = 20


def evaluate(batch: Iterable[Mapping[str, Any]], host: Host) -> list[dict[str, Any]]:
    """Return one result per check, in order.

    A check of the batch is a definition with rendered values, plus `role`, optionally `waiver`
    ({reason, expires, expired}) and `skipped` (bool) with `reason`. Never raises: a probe that does is a failed check.
    """
    results: dict[str, dict[str, Any]] = {}
    for check in batch:
        results[check["id"]] = _evaluate_one(_unless_pointless(check, results), host)
    return list(results.values())


def _unless_pointless(check: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Skip a check whose prerequisite does not hold: one cause is one finding."""
    required = check.get("requires")
    if check.get("skipped") or required is None or (required in results and results[required]["pass"]):
        return check
    return dict(check) | {"skipped": True, "reason": f"{required} does not hold"}


def _evaluate_one(check: Mapping[str, Any], host: Host) -> dict[str, Any]:
    result = {
        "id": check["id"],
        "title": check["title"],
        "severity": check["severity"],
        "role": check.get("role", ""),
        "phase": check.get("phase", "verify"),
        "found": None,
        "needed": check.get("needed"),
        "pass": False,
        "waived": False,
        "skipped": False,
        "reason": "",
        "evidence": "",
        "cure": check.get("cure", ""),
        "refs": list(check.get("refs") or []),
    }
    if check.get("skipped"):
        return result | {"skipped": True, "reason": check.get("reason", "")}
    found, passed = _look(check, host)
    result |= {"found": _shown(found.value), "pass": passed, "evidence": _cut(found.evidence)}
    return result | _waived(check.get("waiver"), passed)


def _look(check: Mapping[str, Any], host: Host) -> tuple[Found, bool]:
    found = Found(None, "")
    try:
        probe = complete(check["probe"])
        found = KINDS[str(probe["kind"])].probe(host, probe)
        return found, matches(found.value, check["needed"])
    except MatchError as error:
        return Found(found.value, f"{found.evidence}; cannot be compared: {error}"), False
    except (ProbeError, TpmError, EventLogError) as error:
        return Found(None, f"cannot be read: {' '.join(str(error).split())}"), False
    except Exception as error:  # a probe's bug or a host's surprise is a finding about this one check
        return Found(None, f"the probe failed: {type(error).__name__}: {' '.join(str(error).split())}"), False


def _waived(waiver: Mapping[str, Any] | None, passed: bool) -> dict[str, Any]:
    if waiver is None:
        return {}
    text = f"{waiver['reason']} (until {waiver['expires']})"
    if passed:
        return {"reason": f"passes, the waiver can go: {text}"}
    if waiver["expired"]:
        return {"reason": f"its waiver expired on {waiver['expires']}: {waiver['reason']}"}
    return {"waived": True, "reason": f"waived: {text}"}


def _shown(value: Any) -> Any:
    """Return the value in a size that may travel and be read."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, list) and len(value) > SHOWN_ITEMS:
        return [_shown(item) for item in value[:SHOWN_ITEMS]] + [f"... and {len(value) - SHOWN_ITEMS} more"]
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LIMIT else f"{text[:SHOWN_LIMIT]}... ({len(text)} characters)"


def failures(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results that neither passed, nor are waived, nor were skipped."""
    return [entry for entry in results if not (entry["pass"] or entry["waived"] or entry["skipped"])]


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return {total, passed, failed, waived, skipped}; the last four add up to the first."""
    return {
        "total": len(results),
        "passed": sum(bool(entry["pass"]) for entry in results),
        "failed": len(failures(results)),
        "waived": sum(bool(entry["waived"]) for entry in results),
        "skipped": sum(bool(entry["skipped"]) for entry in results),
    }


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def explain(results: Sequence[Mapping[str, Any]]) -> str:
    """Return every failure as text for a person: found, needed, evidence, cure."""
    failed = failures(results)
    lines = [f"{len(failed)} of {len(results)} checks failed:"]
    for entry in failed:
        found = "absent" if entry["found"] is None else _said(entry["found"])
        lines += [
            f"  {entry['id']} [{entry['severity']}] {entry['title']}",
            f"    found: {found}   needed: {_said(entry['needed'])}",
            f"    evidence: {entry['evidence']}",
        ]
        if entry["reason"]:
            lines.append(f"    note: {entry['reason']}")
        lines.append(f"    cure: {entry['cure']}")
    return "\n".join(lines)
