"""From the evidence of a failed run to its cause, its cure and the exit code. The table is diagnosis.yml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from kosmos_installer.errors import ExitCode
from kosmos_installer.events import RunState
from kosmos_installer.plan import RunSpec, Verb
from kosmos_installer.results import Check, Failure

_AGAIN = "Then repeat the command: what is done already is not done again."


@dataclass(frozen=True)
class Diagnosis:
    """What it means and what helps. kind is a stable word for programs."""

    kind: str
    cause: str
    cure: str
    exit_code: ExitCode


@dataclass(frozen=True)
class Rule:
    """One entry of the table. status is empty for a rule that holds for every kind of failure."""

    kind: str
    patterns: tuple[re.Pattern[str], ...]
    cause: str
    cure: str
    exit_code: ExitCode
    status: str

    def match(self, text: str, status: str) -> Diagnosis | None:
        """The diagnosis, if the rule is for this status and one of its patterns is in `text`."""
        if self.status not in ("", status):
            return None
        found = next((found for pattern in self.patterns if (found := pattern.search(text))), None)
        if found is None:
            return None
        words = {"again": _AGAIN, **{key: (value or "").strip() for key, value in found.groupdict().items()}}
        return Diagnosis(self.kind, _filled(self.cause, words), _filled(self.cure, words), self.exit_code)


@cache
def rules() -> tuple[Rule, ...]:
    """The table, in its order."""
    table = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    return tuple(
        Rule(
            kind=row["kind"],
            patterns=tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in row["patterns"]),
            cause=row["cause"],
            cure=row["cure"],
            exit_code=ExitCode[row.get("exit", "failed").upper()],
            status=row.get("status", ""),
        )
        for row in table
    )


def diagnose(spec: RunSpec, state: RunState, rc: int, *, interrupted: bool = False) -> Diagnosis | None:
    """What the end of a run means; None for a good end. rc: exit status of ansible-playbook."""
    if interrupted:
        running = next((task for task in reversed(state.tasks) if task.status == "running"), None)
        place = f" during {running.role} > {running.name}" if running and running.role else ""
        return Diagnosis("interrupted", f"Stopped by request{place}.", _AGAIN, ExitCode.INTERRUPTED)
    first = next(iter(state.real_failures), None)
    if first is not None and not first.of_checks:
        return _of_failure(first)
    failed = [check for check in state.checks if check.status == "failed"]
    if first is not None or (failed and spec.verb in {Verb.VERIFY, Verb.PREFLIGHT}):
        return _of_checks(spec, failed)
    if rc == 0 and state.tasks:
        return None
    return _of_output(state, rc)


def _of_failure(failure: Failure) -> Diagnosis:
    if diagnosis := _by_rules(failure.text, failure.status):
        return diagnosis
    if failure.status == "unreachable":
        cure = f"Check by hand: ssh HOST true. {_AGAIN}"
        return Diagnosis("unreachable", "The host could not be reached.", cure, ExitCode.UNREACHABLE)
    cure = f"Correct what its message and evidence name. {_AGAIN}"
    return Diagnosis("task_failed", f"{failure.title} failed.", cure, ExitCode.FAILED)


def _of_checks(spec: RunSpec, failed: Sequence[Check]) -> Diagnosis:
    count = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
    cure = failed[0].cure if len(failed) == 1 and failed[0].cure else "Each failed check names its own cure."
    if spec.verb is Verb.PREFLIGHT or all(check.phase == "preflight" for check in failed):
        cause = f"The host is not fit yet: {count} failed."
        return Diagnosis("preflight_refused", cause, cure, ExitCode.PREFLIGHT_REFUSED)
    cause = f"The host is not as it should be: {count} failed."
    return Diagnosis("verify_failed", cause, cure, ExitCode.VERIFY_FAILED)


def _of_output(state: RunState, rc: int) -> Diagnosis:
    if diagnosis := _by_rules("\n".join([*state.output, *state.warnings]), ""):
        return diagnosis
    if rc == 0:
        cure = "Look at --limit, --tags and --only. The hosts: ansible-inventory -i INVENTORY --graph"
        return Diagnosis("nothing_to_do", "Nothing ran: no host or no task matches.", cure, ExitCode.USAGE)
    cause = f"Ansible ended with status {rc} before it could finish a task."
    cure = "Its own words are in the log; correct what they name."
    return Diagnosis("ansible_error", cause, cure, ExitCode.UNREACHABLE)


def _by_rules(text: str, status: str) -> Diagnosis | None:
    return next((found for rule in rules() if (found := rule.match(text, status))), None)


def _filled(template: str, words: dict[str, str]) -> str:
    """Fill in the groups; an empty bracket, and double spaces from an empty group, disappear."""
    text = re.sub(r"\{(\w+)\}", lambda match: words.get(match.group(1), ""), template)
    return re.sub(r" +([.;]|$)", r"\1", re.sub(r" {2,}", " ", re.sub(r"\s*\(\s*\)", "", text))).strip()
