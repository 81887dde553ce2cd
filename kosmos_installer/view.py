"""Who watches a run: a terminal, a pipe, a program, or nobody. With view_live and view_end the only users of Rich."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kosmos_installer.events import RunState, Task
from kosmos_installer.outcome import Outcome, duration
from kosmos_installer.plan import RunSpec
from kosmos_installer.view_end import ending, footer
from kosmos_installer.view_live import picture

REFRESH_SECONDS = 0.12
PLAIN_WIDTH = 100


class Mode(Enum):
    """How much is shown, and to whom."""

    AUTO = "auto"
    JSON = "json"
    QUIET = "quiet"


class View(Protocol):
    """Is told about a run: begin once, update often (also without news), end once."""

    def begin(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        """The run is about to start."""

    def update(self, state: RunState) -> None:
        """This is what is known now."""

    def end(self, outcome: Outcome, report: str = "") -> None:
        """The run is over. report: a file for people, if there is one."""

    def leave(self) -> None:
        """Give the terminal back, however the run ended; called always, and last."""


def make_view(mode: Mode, out: TextIO, err: TextIO, *, show_diff: bool = False) -> View:
    """The view for this mode and these streams."""
    if mode is Mode.JSON:
        return JsonView(out)
    if mode is Mode.QUIET:
        return QuietView(_console(err), show_diff=show_diff)
    console = _console(out)
    return LiveView(console, show_diff=show_diff) if console.is_terminal else PlainView(console, show_diff=show_diff)


def _console(stream: TextIO) -> Console:
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def print_ending(console: Console, outcome: Outcome, report: str, *, show_diff: bool) -> None:
    """The end of the output; commands and paths stay on one line each, so that they can be copied."""
    console.print()
    for part in ending(outcome, boxed=console.is_terminal, show_diff=show_diff):
        if console.is_terminal:
            console.print(part)
        else:
            with console.capture() as plain:
                console.print(part)
            console.file.writelines(f"{line.rstrip()}\n" for line in plain.get().splitlines())
    console.print()
    for label, text in footer(outcome, report):
        style = "bold" if label in {"resume", "next", "again"} else "bright_black"
        console.print(Text.assemble((f"  {label:<8}", "bright_black"), (text, style)), soft_wrap=True)


@dataclass
class LiveView:
    """A picture that is drawn again and again in the same place, and a summary at the end."""

    console: Console
    show_diff: bool = False
    clock: Callable[[], float] = time.time
    _live: Live | None = None
    _spec: RunSpec | None = None
    _hosts: Sequence[str] = ()
    _drawn: float = 0.0
    _frame: int = 0

    def begin(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        """Take the place for the picture."""
        self._spec, self._hosts = spec, hosts
        self._live = Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self.console.print()
        self._live.start()
        self.update(RunState())

    def update(self, state: RunState) -> None:
        """Draw, but not more often than an eye can follow."""
        now = self.clock()
        if self._live is None or self._spec is None or now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        self._frame += 1
        shown = replace(state, now=max(now, state.now)) if state.started and not state.finished else state
        size = self.console.size
        scene = picture(self._spec, shown, self._hosts, frame=self._frame, height=size.height, width=size.width)
        self._live.update(scene, refresh=True)

    def end(self, outcome: Outcome, report: str = "") -> None:
        """Replace the picture by the summary."""
        self.leave()
        print_ending(self.console, outcome, report, show_diff=self.show_diff)

    def leave(self) -> None:
        """Stop drawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@dataclass
class PlainView:
    """One line for each task that has ended, without colour or cursor movement: for pipes, logs and CI."""

    console: Console
    show_diff: bool = False
    _said: set[str] = field(default_factory=set)

    def begin(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        """Say what begins."""
        mode = ", nothing is changed" if spec.check else ""
        self._line(f"KOSMOS {spec.verb.value} {spec.name} -> {', '.join(hosts) or '(no host)'}{mode}")

    def update(self, state: RunState) -> None:
        """Say which tasks have ended since the last time."""
        current = state.current
        for task in state.tasks:
            if task.status != "running" and task is not current and task.uuid not in self._said:
                self._said.add(task.uuid)
                self._task(state, task)

    def end(self, outcome: Outcome, report: str = "") -> None:
        """Say the rest and the summary."""
        self.update(replace(outcome.state, finished=True))
        print_ending(self.console, outcome, report, show_diff=self.show_diff)

    def leave(self) -> None:
        """Nothing to give back."""

    def _task(self, state: RunState, task: Task) -> None:
        at = duration(task.started - state.started)
        title = f"{task.role} > {task.name}" if task.role else task.name
        self._line(f"{at:>8}  {task.status:<11} {title} ({duration(task.seconds)})")

    def _line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


@dataclass
class QuietView:
    """Silent unless something went wrong."""

    console: Console
    show_diff: bool = False

    def begin(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        """Say nothing."""

    def update(self, state: RunState) -> None:
        """Say nothing."""

    def end(self, outcome: Outcome, report: str = "") -> None:
        """Say why, if it went wrong."""
        if outcome.diagnosis is not None:
            print_ending(self.console, outcome, report, show_diff=self.show_diff)

    def leave(self) -> None:
        """Nothing to give back."""


@dataclass
class JsonView:
    """One JSON document at the end, the same as summary.json."""

    out: TextIO

    def begin(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        """Say nothing."""

    def update(self, state: RunState) -> None:
        """Say nothing."""

    def end(self, outcome: Outcome, report: str = "") -> None:
        """The document."""
        data = {**outcome.data(), "report": report}
        self.out.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
        self.out.flush()

    def leave(self) -> None:
        """Nothing to give back."""
