"""What has happened so far, computed from Ansible's events. Pure: `state = reduce(state, event)`, nothing else.

Events have the shape of ansible_runner 2.4.3 and are redacted before they come here. Times are seconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kosmos_installer.plan import layer_of
from kosmos_installer.results import Change, Check, Failure, changes_of, checks_of, failure_of

Event = Mapping[str, Any]

# The worst result of a task on any host names the task.
_RANK = {"running": 0, "skipped": 1, "ok": 2, "changed": 3, "rescued": 4, "failed": 5, "unreachable": 6}

# Ansible's own task before the first one of a role with an argument specification.
_ARGUMENT_CHECK = re.compile(r"^Validating arguments against arg spec .*", re.DOTALL)

_RESULTS = {
    "runner_on_ok": "ok",
    "runner_on_skipped": "skipped",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}


@dataclass(frozen=True)
class Task:
    """One task of the run. role is empty outside of roles; path is `file:line`."""

    uuid: str
    role: str
    name: str
    path: str
    handler: bool
    started: float
    seconds: float = 0.0
    status: str = "running"


@dataclass(frozen=True)
class Role:
    """The tasks of one role, summed up. total is 0 when the number of tasks is not known."""

    name: str
    status: str
    done: int
    total: int
    changed: int
    seconds: float
    current: str = ""

    @property
    def layer(self) -> str:
        """The layer it belongs to."""
        return layer_of(self.name)


@dataclass(frozen=True)
class RunState:
    """Everything that is known. `totals` are the (role, number of tasks) that Ansible announced, in order.

    hosts: counts per host as in Ansible's recap (ok, changed, dark, failures, skipped, rescued, ignored).
    failed_items: of loops, in order; the result of the whole loop does not tell which item failed.
    output: lines outside of any task, which is where Ansible explains why it did not even begin.
    """

    started: float = 0.0
    now: float = 0.0
    totals: tuple[tuple[str, int], ...] = ()
    tasks: tuple[Task, ...] = ()
    failures: tuple[Failure, ...] = ()
    failed_items: tuple[Failure, ...] = ()
    changes: tuple[Change, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    hosts: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    finished: bool = False

    @property
    def seconds(self) -> float:
        """From the first event to the last."""
        return max(0.0, self.now - self.started)

    @property
    def current(self) -> Task | None:
        """The task that runs now."""
        return self.tasks[-1] if self.tasks and not self.finished else None

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        return sum(task.status == "changed" for task in self.tasks)

    @property
    def real_failures(self) -> tuple[Failure, ...]:
        """Failures that no rescue took care of, the first one first."""
        return tuple(failure for failure in self.failures if not failure.rescued)

    def slowest(self, count: int = 5) -> tuple[Task, ...]:
        """The tasks that took longest, longest first."""
        return tuple(sorted(self.tasks, key=lambda task: -task.seconds)[:count])


def announce(state: RunState, totals: Iterable[tuple[str, int]]) -> RunState:
    """Tell the state how many tasks each role will run, in the order in which the roles come."""
    return replace(state, totals=tuple(totals))


def reduce(state: RunState, event: Event) -> RunState:
    """The state after `event`. Total: an event of unknown or damaged shape only moves the clock."""
    kind = str(event.get("event", ""))
    data = event.get("event_data")
    data = data if isinstance(data, Mapping) else {}
    now = _epoch(event.get("created")) or state.now
    state = replace(state, now=max(now, state.now), started=state.started or now)
    text = str(event.get("stdout", ""))
    match kind:
        case "playbook_on_task_start":
            state = _start_task(state, data)
        case "runner_on_ok" | "runner_on_skipped" | "runner_on_failed" | "runner_on_unreachable":
            state = _take_result(state, kind, data, text)
        case "runner_item_on_failed":
            state = replace(state, failed_items=(*state.failed_items, failure_of(data, _result(data), text, "failed")))
        case "playbook_on_stats":
            state = _take_stats(state, data)
        case "verbose" | "error":
            state = _take_output(state, text)
        case "warning" | "system_warning":
            state = _take_warning(state, text)
    return state


def roles_of(state: RunState) -> tuple[Role, ...]:
    """Announced roles in their order, then what came in addition; tasks outside of roles are no role."""
    names = dict.fromkeys([role for role, _ in state.totals] + [task.role for task in state.tasks if task.role])
    totals = dict(state.totals)
    return tuple(_role(state, name, totals.get(name, 0)) for name in names)


def progress(state: RunState) -> float | None:
    """Share of the announced tasks that are done, 0.0 to 1.0; None while their number is not known.

    Handlers are not announced and not counted. Included files add tasks, so 1.0 is kept for the real end.
    """
    total = sum(count for _, count in state.totals)
    if state.finished:
        return 1.0
    if total == 0:
        return None
    done = sum(min(role.done, role.total) for role in roles_of(state))
    return min(done / total, 0.99)


def _role(state: RunState, name: str, total: int) -> Role:
    tasks = [task for task in state.tasks if task.role == name]
    current = state.current
    active = current is not None and current.role == name
    worst = max((task.status for task in tasks), key=_RANK.__getitem__, default="waiting")
    status = worst if worst in {"failed", "unreachable", "waiting"} else "running" if active else "done"
    return Role(
        name=name,
        status=status,
        done=sum(not task.handler and task.status != "running" for task in tasks),
        total=total,
        changed=sum(task.status == "changed" for task in tasks),
        seconds=sum(task.seconds for task in tasks) + (_running_for(state, current) if active and current else 0.0),
        current=current.name if active and current else "",
    )


def _running_for(state: RunState, task: Task) -> float:
    return max(0.0, state.now - task.started - task.seconds) if task.status == "running" else 0.0


def _start_task(state: RunState, data: Event) -> RunState:
    role, name = str(data.get("role", "")), str(data.get("name") or data.get("task") or "")
    task = Task(
        uuid=str(data.get("task_uuid", "")),
        role=role.rpartition(".")[2],
        name=_ARGUMENT_CHECK.sub("Validate the arguments", name.removeprefix(f"{role} : ")),
        path=str(data.get("task_path", "")),
        handler=bool(data.get("is_conditional")),
        started=state.now,
    )
    return replace(state, tasks=(*state.tasks, task))


def _take_result(state: RunState, kind: str, data: Event, stdout: str) -> RunState:
    result = _result(data)
    status = _RESULTS[kind]
    if status == "ok" and result.get("changed"):
        status = "changed"
    if status == "failed" and data.get("ignore_errors"):
        status = "ok"
    state = replace(
        state,
        tasks=_with_status(state, str(data.get("task_uuid", "")), status),
        checks=_newest(state.checks, checks_of(data, result)),
        warnings=_merge(state.warnings, result.get("warnings")),
    )
    if status == "changed":
        return replace(state, changes=(*state.changes, *changes_of(data, result)))
    if status in {"failed", "unreachable"}:
        failure = failure_of(data, result, stdout, status)
        items = (
            item for item in state.failed_items if (item.task_uuid, item.host) == (failure.task_uuid, failure.host)
        )
        return replace(state, failures=(*state.failures, next(items, failure)))
    return state


def _result(data: Event) -> Event:
    result = data.get("res")
    return result if isinstance(result, Mapping) else {}


def _newest(known: tuple[Check, ...], more: tuple[Check, ...]) -> tuple[Check, ...]:
    """A check that is reported again (by a retry, or by the task that concludes) replaces what it said before."""
    return tuple({(check.host, check.id): check for check in (*known, *more)}.values())


def _with_status(state: RunState, uuid: str, status: str) -> tuple[Task, ...]:
    """The newest task with this uuid takes the worst status of its hosts."""
    for index in range(len(state.tasks) - 1, -1, -1):
        task = state.tasks[index]
        if task.uuid == uuid:
            worst = max(task.status, status, key=_RANK.__getitem__)
            done = replace(task, status=worst, seconds=max(0.0, state.now - task.started))
            return (*state.tasks[:index], done, *state.tasks[index + 1 :])
    return state.tasks


def _take_stats(state: RunState, data: Event) -> RunState:
    names = ("ok", "changed", "dark", "failures", "skipped", "rescued", "ignored")
    counts = {name: value for name in names if isinstance(value := data.get(name), Mapping)}
    hosts = dict.fromkeys(host for value in counts.values() for host in value)
    table = tuple((host, tuple((name, int(counts.get(name, {}).get(host, 0))) for name in names)) for host in hosts)
    state = replace(state, hosts=table, finished=True)
    return _settle_rescues(state, {host: int(count) for host, count in counts.get("rescued", {}).items()})


def _settle_rescues(state: RunState, rescued: dict[str, int]) -> RunState:
    """Only the recap tells whether a failure was rescued. After the first unrescued one a host runs nothing but
    handlers and `always`, so the rescued ones are the host's first."""
    left = dict(rescued)
    failures = []
    for failure in state.failures:
        is_rescued = failure.status == "failed" and left.get(failure.host, 0) > 0
        left[failure.host] = left.get(failure.host, 0) - is_rescued
        failures.append(replace(failure, rescued=is_rescued))
    real = {failure.task_uuid for failure in failures if not failure.rescued}
    saved = {failure.task_uuid for failure in failures if failure.rescued} - real
    tasks = tuple(replace(task, status="rescued") if task.uuid in saved else task for task in state.tasks)
    return replace(state, failures=tuple(failures), tasks=tasks)


def _take_output(state: RunState, text: str) -> RunState:
    if text.startswith("[WARNING]"):
        return _take_warning(state, text)
    lines = tuple(line for line in text.replace("\r", "").split("\n") if line.strip())
    return replace(state, output=(*state.output, *lines))


def _take_warning(state: RunState, text: str) -> RunState:
    words = " ".join(text.split())
    return replace(state, warnings=_merge(state.warnings, [words.removeprefix("[WARNING]: ")]))


def _merge(known: tuple[str, ...], more: Any) -> tuple[str, ...]:
    fresh = [str(text) for text in more] if isinstance(more, list) else []
    return tuple(dict.fromkeys([*known, *(text for text in fresh if text)]))


def _epoch(created: Any) -> float:
    try:
        return datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0
