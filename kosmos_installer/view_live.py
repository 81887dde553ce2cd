"""The picture while Ansible works: layers, roles, time, and the task that runs now. Pure: state in, renderable out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kosmos_installer.events import Role, RunState, progress, roles_of
from kosmos_installer.outcome import duration
from kosmos_installer.plan import RunSpec

_DIM = "bright_black"

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

_MARKS = {
    "done": ("✔", "green"),
    "failed": ("✘", "red"),
    "unreachable": ("✘", "red"),
    "waiting": ("·", _DIM),
}

_FRAME_LINES = 5  # heading, bar, and the space around


def picture(spec: RunSpec, state: RunState, hosts: Sequence[str], *, frame: int, height: int, width: int) -> Group:
    """What the terminal shows now. frame: counts up, turns the spinner.  height and width: of the terminal."""
    roles = roles_of(state)
    layers: dict[str, list[Role]] = {}
    for role in roles:
        layers.setdefault(role.layer, []).append(role)
    crowded = len(roles) + _FRAME_LINES > height
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, min_width=7, style="bold")
    table.add_column(width=1)
    table.add_column(no_wrap=True, min_width=16)
    table.add_column(no_wrap=True, justify="right", style=_DIM, min_width=8)
    table.add_column(no_wrap=True, style="yellow", min_width=10)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1, style="cyan")
    table.add_column(no_wrap=True, justify="right", style=_DIM, min_width=7)
    for layer, members in layers.items():
        if crowded and all(role.status in {"done", "waiting"} for role in members):
            table.add_row(layer, *_folded(members))
            continue
        for index, role in enumerate(members):
            table.add_row("" if index else layer, *_line(role, frame))
    body = Padding(Group(*_body(state, table, frame)), (0, 0, 0, 2))
    return Group(_heading(spec, state, hosts, width), Text(), _bar(state, width), Text(), body)


def _heading(spec: RunSpec, state: RunState, hosts: Sequence[str], width: int) -> Text:
    words = Text.assemble(("  KOSMOS ", "bold cyan"), (f" {spec.verb.value} ", "bold"), f"{spec.name}")
    if hosts:
        words.append(" → " + ", ".join(hosts[:3]) + (" …" if len(hosts) > 3 else ""), style=_DIM)
    if spec.check:
        words.append("   nothing is changed", style="cyan")
    clock = Text(duration(state.seconds), style=_DIM)
    words.append(" " * max(2, width - words.cell_len - clock.cell_len - 1))
    return words.append_text(clock)


def _bar(state: RunState, width: int) -> RenderableType:
    share = progress(state)
    row = Table.grid(padding=(0, 1))
    row.add_column(width=max(10, min(width - 10, 72)))
    row.add_column(justify="right", width=5)
    bar = ProgressBar(total=1.0, completed=share or 0.0, style="grey23", complete_style="cyan", finished_style="green")
    row.add_row(bar, "" if share is None else f"{share:4.0%}")
    return Padding(row, (0, 0, 0, 2))


def _body(state: RunState, table: Table, frame: int) -> list[RenderableType]:
    current = state.current
    if table.row_count and (current is None or current.role):
        return [table]
    words = current.name if current else "Starting Ansible"
    line = Text.assemble((SPINNER[frame % len(SPINNER)], "cyan"), " ", words)
    return [table, line] if table.row_count else [line]


def _line(role: Role, frame: int) -> tuple[RenderableType, ...]:
    mark, style = _MARKS.get(role.status, (SPINNER[frame % len(SPINNER)], "cyan"))
    running = role.status == "running"
    name = Text(role.name, style="bold" if running else "" if role.done else _DIM)
    if running:
        done = f"{min(role.done + 1, role.total)} of {role.total}" if role.total else str(role.done + 1)
    else:
        done = str(role.done or role.total or "")
    return (
        Text(mark, style=style),
        name,
        done,
        f"{role.changed} changed" if role.changed else "",
        Text(role.current),
        duration(role.seconds) if role.seconds else "",
    )


def _folded(members: list[Role]) -> tuple[RenderableType, ...]:
    """One line for a whole layer, where the terminal is too low for all roles."""
    done = all(role.status == "done" for role in members)
    mark, style = _MARKS["done" if done else "waiting"]
    changed = sum(role.changed for role in members)
    return (
        Text(mark, style=style),
        Text(f"{len(members)} roles", style="" if done else _DIM),
        "",
        f"{changed} changed" if changed else "",
        "",
        duration(sum(role.seconds for role in members)) if done else "",
    )
