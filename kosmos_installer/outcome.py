"""How a run ended, as data: the end of the terminal output, `--json` and summary.json all say the same. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kosmos_installer.diagnosis import Diagnosis
from kosmos_installer.errors import ExitCode
from kosmos_installer.events import RunState, roles_of
from kosmos_installer.plan import RunSpec, Verb
from kosmos_installer.results import Change, Check, Failure

# What an operator does after a verb that went well.
_NEXT = {Verb.PREFLIGHT: Verb.PLAN, Verb.PLAN: Verb.APPLY, Verb.APPLY: Verb.VERIFY, Verb.RESET: Verb.VERIFY}


@dataclass(frozen=True)
class Outcome:
    """record: folder of the record.  hosts: the inventory's hosts.  seconds: from start to end, start-up included."""

    spec: RunSpec
    state: RunState
    diagnosis: Diagnosis | None
    record: str
    hosts: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        return self.diagnosis.exit_code if self.diagnosis else ExitCode.OK

    @property
    def log(self) -> str:
        """The plain log."""
        return f"{self.record}/log.txt"

    @property
    def failure(self) -> Failure | None:
        """The failure that ended the run, if a task did."""
        return next(iter(self.state.real_failures), None)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """Checks that failed and are not waived."""
        return tuple(check for check in self.state.checks if check.status == "failed")

    @property
    def resume(self) -> str:
        """The command that carries on. Finished roles change nothing the second time."""
        return self.spec.command()

    @property
    def next_command(self) -> str:
        """What to do after a good end; empty if that was all."""
        spec = self.spec
        if spec.check and spec.verb in {Verb.PLAN, Verb.APPLY}:
            return spec.command(Verb.APPLY, changing=True) if self.state.changed else ""
        if spec.verb not in _NEXT:
            return ""
        command = spec.command(_NEXT[spec.verb], changing=True)
        return f"{command} --clean" if spec.verb is Verb.RESET else command

    def data(self) -> dict[str, Any]:
        """For `--json` and summary.json. Durations are seconds."""
        state = self.state
        return {
            "verb": self.spec.verb.value,
            "name": self.spec.name,
            "command": self.resume,
            "check": self.spec.check,
            "exit_code": int(self.exit_code),
            "exit_name": self.exit_code.name.lower(),
            "seconds": round(self.seconds, 1),
            "changed": state.changed,
            "hosts": {host: dict(counts) for host, counts in state.hosts} or {host: {} for host in self.hosts},
            "roles": [{**asdict(role), "seconds": round(role.seconds, 1)} for role in roles_of(state)],
            "slowest": [
                {"role": task.role, "task": task.name, "where": task.path, "seconds": round(task.seconds, 1)}
                for task in state.slowest()
            ],
            "changes": [_change(change) for change in state.changes],
            "checks": {"counts": counts_of(state.checks), "results": [check.data() for check in state.checks]},
            "failures": [{**asdict(failure), "title": failure.title} for failure in state.failures],
            "diagnosis": {**asdict(self.diagnosis), "exit_code": int(self.exit_code)} if self.diagnosis else None,
            "warnings": list(state.warnings),
            "output": list(state.output),
            "record": self.record,
            "log": self.log,
            "next": self.next_command if self.diagnosis is None else self.resume,
        }


def counts_of(checks: Sequence[Check]) -> dict[str, int]:
    """total, passed, failed, waived, skipped."""
    counted = Counter(check.status for check in checks)
    return {"total": len(checks), **{name: counted[name] for name in ("passed", "failed", "waived", "skipped")}}


def by_role(checks: Sequence[Check]) -> dict[str, list[Check]]:
    """The checks of each role, roles in the order in which they came."""
    table: dict[str, list[Check]] = {}
    for check in checks:
        table.setdefault(check.role, []).append(check)
    return table


def changed_files(changes: Sequence[Change]) -> dict[str, list[Change]]:
    """The changes of each role, roles in the order in which they came."""
    table: dict[str, list[Change]] = {}
    for change in changes:
        table.setdefault(change.role, []).append(change)
    return table


def duration(seconds: float) -> str:
    """`7.3 s` below ten seconds, `48 s` below a minute, then `2:07`, then `1:02:07`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _change(change: Change) -> dict[str, Any]:
    return {"host": change.host, "role": change.role, "task": change.task, "paths": list(change.paths),
            "diffs": [asdict(diff) for diff in change.diffs]}  # fmt: skip
