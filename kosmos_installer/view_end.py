"""What is said when a run has ended: summary, plan, checks, failure. Pure: Outcome in, renderables out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kosmos_installer.events import roles_of
from kosmos_installer.outcome import Outcome, by_role, changed_files, counts_of, duration
from kosmos_installer.plan import Verb
from kosmos_installer.results import Change, Check, Diff, Failure

_DONE = {
    Verb.PREFLIGHT: "is fit for the appliance",
    Verb.PLAN: "would change",
    Verb.APPLY: "is applied",
    Verb.VERIFY: "is as it should be",
    Verb.RESET: "is reset",
}
_DIM = "bright_black"
_NOTICEABLE_SECONDS = 0.1
_MOST_WARNINGS = 5  # all are in the log


def ending(outcome: Outcome, *, boxed: bool, show_diff: bool = False) -> Iterator[RenderableType]:
    """Everything to print, in order. boxed: a frame around a failure, for terminals."""
    state = outcome.state
    if outcome.spec.check and state.changes:
        yield _plan(outcome, show_diff=show_diff)
    if outcome.spec.verb in {Verb.APPLY, Verb.RESET} and not outcome.spec.check and state.tasks:
        yield _indented(_roles(outcome))
        yield _indented(_slowest(outcome))
    if outcome.failed_checks:
        yield _indented(failed_checks(outcome.failed_checks))
    if outcome.spec.verb in {Verb.VERIFY, Verb.PREFLIGHT} and state.checks:
        yield _indented(_check_counts(outcome))
    if outcome.diagnosis and outcome.diagnosis.kind not in {"verify_failed", "preflight_refused", "interrupted"}:
        yield _failure_panel(outcome, boxed=boxed)
    if state.warnings:
        yield _indented(Text("\n".join(f"! {text}" for text in state.warnings[:_MOST_WARNINGS]), style="yellow"))
    yield headline(outcome)


def headline(outcome: Outcome) -> Text:
    """One line: how it ended."""
    spec, state = outcome.spec, outcome.state
    took = f"in {duration(outcome.seconds)}"
    if outcome.diagnosis is not None:
        stopped = outcome.diagnosis.kind == "interrupted"
        mark = ("■", "bold yellow") if stopped else ("✘", "bold red")
        return Text.assemble(mark, f" {spec.verb.value} {spec.name}: {outcome.diagnosis.cause} ", (f"({took})", _DIM))
    words = f" {spec.name} {_DONE[spec.verb]}"
    tasks = "1 task" if state.changed == 1 else f"{state.changed} tasks"
    if spec.check:
        words = f" {spec.name}: {tasks} would change something" if state.changed else f" {spec.name}: nothing to change"
    elif spec.verb in {Verb.APPLY, Verb.RESET}:
        words += f": {tasks} changed something" if state.changed else ": nothing had to be changed"
    checks = counts_of(state.checks)
    if checks["total"]:
        words += f", {checks['passed']} of {checks['total'] - checks['skipped']} checks passed"
    return Text.assemble(("✔", "bold green"), words, " ", (took, _DIM))


def footer(outcome: Outcome, report: str = "") -> list[tuple[str, str]]:
    """(label, text) lines that must never be broken: commands and paths."""
    lines = [("report", report)] if report else []
    lines.append(("log", outcome.log))
    if outcome.diagnosis is not None:
        lines.append(("resume" if outcome.spec.verb in {Verb.APPLY, Verb.RESET} else "again", outcome.resume))
    elif outcome.next_command:
        lines.append(("next", outcome.next_command))
    return lines


def failed_checks(checks: tuple[Check, ...]) -> RenderableType:
    """Each failed check with what was found, what is needed, and the cure."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=7, style=_DIM)
    table.add_column(overflow="fold")
    for number, check in enumerate(checks):
        if number:
            table.add_row()
        title = Text.assemble((check.id, "bold"), "  ", check.title, (f"  {check.severity}", _DIM))
        table.add_row(Text("✘", style="red"), Text("failed", style="red"), title)
        table.add_row("", "found", Text(shown(check.found), style="yellow"))
        table.add_row("", "needed", shown(check.needed))
        if check.reason:
            table.add_row("", "why", check.reason)
        if check.cure:
            table.add_row("", "cure", Text(check.cure, style="cyan"))
    return table


def shown(value: Any, limit: int = 300) -> str:
    """A found or needed value for a person: text as it is, anything else as JSON; long ones are cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()) or "(empty)"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _roles(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=_DIM, show_edge=False)
    table.add_column("role", no_wrap=True, min_width=20)
    for name in ("tasks", "changed", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for role in roles_of(outcome.state):
        if role.status == "waiting":
            continue
        style = {"failed": "red", "unreachable": "red"}.get(role.status, "")
        changed = Text(str(role.changed), style="yellow" if role.changed else _DIM)
        table.add_row(Text(role.name, style=style), str(role.done), changed, duration(role.seconds))
    return table


def _slowest(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=_DIM, show_edge=False)
    table.add_column("slowest tasks", no_wrap=True, overflow="ellipsis")
    table.add_column("time", justify="right", no_wrap=True)
    for task in outcome.state.slowest():
        if task.seconds < _NOTICEABLE_SECONDS:
            continue
        title = f"{task.role} > {task.name}" if task.role else task.name
        table.add_row(title, duration(task.seconds))
    return table


def _check_counts(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=_DIM, show_edge=False)
    table.add_column("role", no_wrap=True, min_width=20)
    for name in ("passed", "failed", "waived", "skipped"):
        table.add_column(name, justify="right", no_wrap=True)
    styles = {"passed": "green", "failed": "red", "waived": "yellow", "skipped": _DIM}
    for role, checks in by_role(outcome.state.checks).items():
        counts = counts_of(checks)
        table.add_row(
            role, *(Text(str(counts[key]), style=style if counts[key] else _DIM) for key, style in styles.items())
        )
    return table


def _plan(outcome: Outcome, *, show_diff: bool) -> RenderableType:
    parts: list[RenderableType] = []
    for role, changes in changed_files(outcome.state.changes).items():
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        parts.append(Text.assemble((role or "playbook", "bold"), (f"  {count}", "yellow")))
        for change in changes:
            parts.append(Text.assemble("  ", ("~", "yellow"), f" {change.task}"))
            parts += [Text(f"      {path}{_size(change, path)}", style=_DIM) for path in change.paths]
            if show_diff:
                parts += [Padding(_diff(diff), (0, 0, 0, 6)) for diff in change.diffs]
        parts.append(Text())
    return _indented(Group(*parts), below=0)


def _size(change: Change, path: str) -> str:
    lines = [line for diff in change.diffs if diff.path == path for line in _unified(diff)[2:]]
    plus, minus = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return f"  +{plus} -{minus}" if plus or minus else ""


def _diff(diff: Diff) -> Text:
    text = Text()
    for line in _unified(diff):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], _DIM)
        text.append(line + "\n", style=style)
    return text


def _unified(diff: Diff) -> list[str]:
    if diff.prepared:
        return diff.prepared.rstrip("\n").splitlines()
    before, after = diff.before.splitlines(), diff.after.splitlines()
    return list(difflib.unified_diff(before, after, f"{diff.path} now", f"{diff.path} then", lineterm="", n=2))


def _failure_panel(outcome: Outcome, *, boxed: bool) -> RenderableType:
    diagnosis, failure = outcome.diagnosis, outcome.failure
    table = Table.grid(padding=(0, 2))
    table.add_column(style=_DIM, no_wrap=True)
    table.add_column(overflow="fold")
    title = failure.title if failure else outcome.spec.verb.value
    if not boxed:
        table.add_row("failed", title)
    for label, value in _about(outcome, failure):
        table.add_row(label, value)
    if diagnosis is not None:
        if diagnosis.kind != "task_failed":
            table.add_row("cause", Text(diagnosis.cause, style="bold"))
        table.add_row("cure", Text(diagnosis.cure, style="cyan"))
    if not boxed:
        return _indented(table)
    heading = Text(title, style="bold red")
    panel = Panel(table, box=ROUNDED, border_style="red", title=heading, title_align="left", padding=(1, 2))
    return _indented(panel, left=1)


def _about(outcome: Outcome, failure: Failure | None) -> Iterator[tuple[str, RenderableType]]:
    if failure is None:
        yield "said", Text("\n".join(outcome.state.output[-12:]) or "(nothing)")
        return
    yield "host", failure.host
    yield "where", Text(failure.where.removeprefix(f"{outcome.spec.playbook.parent.parent}/"))
    if failure.item:
        yield "item", failure.item
    yield "message", Text(failure.message)
    for label, value in failure.facts.items():
        yield label, Text(shown(value))
    if failure.evidence:
        yield "evidence", Text("\n".join(failure.evidence), style="yellow")


def _indented(inner: RenderableType, *, left: int = 2, below: int = 1) -> Padding:
    return Padding(inner, (0, 0, below, left))
