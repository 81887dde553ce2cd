"""One run from beginning to end: lock the host, run Ansible, show and record what happens, tell what it means."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from kosmos_installer import events, hostlock, record, report, tasklist
from kosmos_installer.diagnosis import diagnose
from kosmos_installer.events import RunState
from kosmos_installer.outcome import Outcome
from kosmos_installer.plan import RunSpec, Verb
from kosmos_installer.redact import Redactor, secret_values
from kosmos_installer.runner import AnsibleRun, Event, Finished, Stop
from kosmos_installer.targets import Targets
from kosmos_installer.view import View

_CHANGING = {Verb.APPLY, Verb.RESET}


@dataclass
class Operation:
    """Everything that a run needs from outside. environment: of this process, with the tree's additions.

    state_dir: where records and locks lie.  now: current time in UTC.
    """

    spec: RunSpec
    targets: Targets
    environment: Mapping[str, str]
    cwd: Path
    state_dir: Path
    view: View
    become_password: str = field(default="", repr=False)
    stop: Stop = field(default_factory=Stop)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    _state: RunState = field(default_factory=RunState)
    _totals: list[tuple[str, int]] = field(default_factory=list)

    def execute(self) -> Outcome:
        """Run. A run that fails is an Outcome too; raises KosmosError for one that could not begin (busy, no disk)."""
        redactor = Redactor.knowing([self.become_password, *self.targets.secrets, *secret_values(self.environment)])
        runs = self.state_dir / "runs"
        hosts = tuple(target.name for target in self.targets.hosts)
        with ExitStack() as stack:
            if self.spec.verb in _CHANGING and not self.spec.check:
                keys = [target.key for target in self.targets.hosts]
                stack.enter_context(hostlock.hold(self.state_dir / "locks", keys, self._me()))
            kept = stack.enter_context(
                record.Record.create(runs, self.spec.verb, self.spec.name, self.now(), redactor.data(self.spec.data()))
            )
            stack.callback(self.view.leave)
            self.view.begin(self.spec, hosts)
            began = self.clock()
            finished = self._run(kept, redactor)
            if kept.problem:
                self._state = replace(self._state, warnings=(*self._state.warnings, kept.problem))
            outcome = Outcome(
                spec=self.spec,
                state=self._state,
                diagnosis=diagnose(self.spec, self._state, finished.rc, interrupted=finished.interrupted),
                record=str(kept.folder),
                hosts=hosts,
                seconds=self.clock() - began,
            )
            page = ""
            with suppress(OSError):  # a full disk here shall not hide how the run ended
                kept.write("summary.json", redactor.data({**outcome.data(), "rc": finished.rc, "ended": self.now()}))
                page = report.write(kept, outcome, self.now()) if outcome.state.checks else ""
                record.prune(runs)
            self.view.end(outcome, page)
        return outcome

    def _run(self, kept: record.Record, redactor: Redactor) -> Finished:
        """Ansible in one thread, the count of its tasks in another, everything else in this one.

        The count begins with the first event: until then Ansible's process is being forked, and the fewer threads
        there are at that moment the better.
        """
        counter = threading.Thread(target=self._count_tasks, name="task list", daemon=True)

        def take(event: Event) -> None:
            if not self._state.started:
                counter.start()
            clean = redactor.event(event)
            kept.event(clean)
            self._state = events.reduce(self._state, clean)

        def tick() -> None:
            if self._totals and not self._state.totals:
                self._state = events.announce(self._state, self._totals)
            self.view.update(self._state)

        return AnsibleRun(self.spec, self.cwd, self.environment, take, tick, self.become_password, self.stop).execute()

    def _count_tasks(self) -> None:
        """Only the percentage needs it: a run whose tasks cannot be listed runs all the same."""
        with suppress(OSError, subprocess.SubprocessError):
            self._totals = tasklist.totals(self.spec, self.environment, self.cwd)

    def _me(self) -> hostlock.Holder:
        since = self.now().isoformat(timespec="seconds")
        return hostlock.Holder(os.getpid(), socket.gethostname(), since, self.spec.command())
