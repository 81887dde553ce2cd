"""What one task result says: what changed, what failed and with which evidence, and what the checks found. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CHECK_MODULE = "kosmos.appliance.host_check"
EVIDENCE_LINES = 20

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Diff:
    """One before/after pair of a module's diff. `prepared` is used by modules that render it themselves."""

    path: str
    before: str = ""
    after: str = ""
    prepared: str = ""


@dataclass(frozen=True)
class Change:
    """One task that changed something on one host, or would have in check mode."""

    host: str
    role: str
    task: str
    paths: tuple[str, ...] = ()
    diffs: tuple[Diff, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One task that failed on one host. evidence: what the host itself said.  where: `file:line`.

    of_checks: host_check worked, and failed because of what it found.
    """

    host: str
    role: str
    task: str
    task_uuid: str
    where: str
    action: str
    message: str
    status: str = "failed"
    item: str = ""
    evidence: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    of_checks: bool = False
    rescued: bool = False

    @property
    def title(self) -> str:
        """`role > task`, or the task alone outside of roles."""
        return f"{self.role} > {self.task}" if self.role else self.task

    @property
    def text(self) -> str:
        """Everything that a diagnosis may look at."""
        return "\n".join([self.message, *self.evidence, *self.facts.values()])


@dataclass(frozen=True)
class Check:
    """One result of `kosmos.appliance.host_check`."""

    id: str
    host: str
    role: str
    title: str
    phase: str
    severity: str
    passed: bool
    waived: bool
    skipped: bool
    found: Any = None
    needed: Any = None
    reason: str = ""
    evidence: str = ""
    cure: str = ""
    refs: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """passed, failed, waived or skipped."""
        if self.skipped:
            return "skipped"
        if self.passed:
            return "passed"
        return "waived" if self.waived else "failed"

    def data(self) -> dict[str, Any]:
        """For JSON, with the status spelt out."""
        return {**asdict(self), "refs": list(self.refs), "status": self.status}


def checks_of(data: Data, result: Data) -> tuple[Check, ...]:
    """The checks in a result of host_check, none for any other module."""
    if not _is_host_check(data):
        return ()
    rows = result.get("results")
    role = _role(data)
    return tuple(_check(row, str(data.get("host", "")), role) for row in rows or () if isinstance(row, Mapping))


def changes_of(data: Data, result: Data) -> tuple[Change, ...]:
    """The change of a task, with the files it names and their diffs."""
    diffs = tuple(_diffs(result))
    paths = dict.fromkeys([*paths_of(result), *(diff.path for diff in diffs if diff.path.startswith("/"))])
    return (Change(str(data.get("host", "")), _role(data), str(data.get("task", "")), tuple(paths), diffs),)


def paths_of(result: Data) -> tuple[str, ...]:
    """Absolute paths of the files that a result says it changed, loop items included, without repetition."""
    found: list[str] = []
    for part in _parts(result):
        if part.get("changed", True):
            named = part.get("paths")
            found += [str(path) for path in named] if isinstance(named, list) else []
            found += [str(part[key]) for key in ("dest", "path") if isinstance(part.get(key), str)]
    return tuple(dict.fromkeys(path for path in found if path.startswith("/")))


def failure_of(data: Data, result: Data, stdout: str, status: str) -> Failure:
    """The failure of a task, or of one item of its loop."""
    return Failure(
        host=str(data.get("host", "")),
        role=_role(data),
        task=str(data.get("task", "")),
        task_uuid=str(data.get("task_uuid", "")),
        where=str(data.get("task_path", "")),
        action=str(data.get("resolved_action") or data.get("task_action") or ""),
        message=_message(result, stdout),
        status=status,
        item=_text(result.get("_ansible_item_label", result.get("item"))),
        evidence=_evidence(result),
        facts=_facts(result),
        of_checks=_is_host_check(data) and bool((result.get("summary") or {}).get("failed")),
    )


def _parts(result: Data) -> list[Data]:
    """The result itself, then the results of its loop items."""
    items = result.get("results")
    rows = items if isinstance(items, list) else []
    return [result, *(row for row in rows if isinstance(row, Mapping))]


def _diffs(result: Data) -> list[Diff]:
    found = []
    for part in _parts(result):
        raw = part.get("diff")
        for row in raw if isinstance(raw, list) else [raw]:
            if isinstance(row, Mapping) and (row.get("before") != row.get("after") or row.get("prepared")):
                path = str(row.get("after_header") or row.get("before_header") or "").partition(" (")[0]
                found.append(Diff(path, *(_text(row.get(key)) for key in ("before", "after", "prepared"))))
    return found


def _message(part: Data, stdout: str) -> str:
    text = _text(part.get("msg")).strip() or "\n".join(_lines(stdout)[:3]) or "The module gave no reason."
    for prefix in ("Task failed: ", "Module failed: ", "Action failed: "):
        text = text.removeprefix(prefix)
    return text


def _evidence(part: Data) -> tuple[str, ...]:
    for keys in (("stderr", "module_stderr"), ("stdout", "module_stdout")):
        lines = [line for key in keys for line in _lines(_text(part.get(key)))]
        if lines:
            return tuple(lines[-EVIDENCE_LINES:])
    return ()


def _facts(part: Data) -> dict[str, str]:
    """Small things that locate the failure on the host."""
    command = part.get("cmd")
    facts = {
        "command": " ".join(map(str, command)) if isinstance(command, list) else _text(command),
        "exit status": _text(part.get("rc")),
        "path": _text(part.get("path") or part.get("dest")),
    }
    return {key: value.strip() for key, value in facts.items() if value.strip()}


def _check(row: Data, host: str, role: str) -> Check:
    refs = row.get("refs")
    return Check(
        id=str(row.get("id", "")),
        host=host,
        role=str(row.get("role") or role),
        title=str(row.get("title", "")),
        phase=str(row.get("phase", "verify")),
        severity=str(row.get("severity", "medium")),
        passed=bool(row.get("pass")),
        waived=bool(row.get("waived")),
        skipped=bool(row.get("skipped")),
        found=row.get("found"),
        needed=row.get("needed"),
        reason=_text(row.get("reason")),
        evidence=_text(row.get("evidence")),
        cure=_text(row.get("cure")),
        refs=tuple(str(ref) for ref in refs) if isinstance(refs, list) else (),
    )


def _is_host_check(data: Data) -> bool:
    return CHECK_MODULE in {data.get("task_action"), data.get("resolved_action")}


def _role(data: Data) -> str:
    return str(data.get("role", "")).rpartition(".")[2]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r", "").split("\n") if line.strip()]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)
