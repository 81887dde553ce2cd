"""The only module that imports ansible_runner: one RunSpec in, a stream of events and an exit status out.

What ansible_runner 2.4.3 does that shapes this file (each was tried):
- it writes the child's whole environment to `artifacts/*/command`, and every event to a file: so its folder lies in
  memory, `command` is deleted before the child starts, events are kept from it, and the folder is removed at the end;
- an exception in the event handler ends the run: the handler only puts the event on a queue;
- it switches SSH host key checking off unless told otherwise: we tell it otherwise;
- its own cancel kills at once: we send SIGINT first, so that Ansible ends its workers itself.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ansible_runner.config.command import CommandConfig
from ansible_runner.runner import Runner

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.plan import RunSpec

Event = dict[str, Any]

_END: Event = {"event": "end of session"}

TICK_SECONDS = 0.1
_SCRATCH = "kosmos-run-"
GRACE_SECONDS = 20.0  # an SSH connection that has just dropped is noticed within this time

# What must hold whatever the operator's own environment says.
_FIXED_ENVIRONMENT = {
    "ANSIBLE_STDOUT_CALLBACK": "default",
    "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
    "ANSIBLE_FORCE_COLOR": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_NOCOWS": "True",
    "ANSIBLE_NO_TARGET_SYSLOG": "True",  # module arguments stay out of the target's log
}


@dataclass
class Stop:
    """The wish to end a run early: asked once is polite, asked twice is at once."""

    asked: int = 0

    def ask(self, _signum: int = 0, _frame: FrameType | None = None) -> None:
        """Signal handler; it only counts, the run loop acts."""
        self.asked += 1


@dataclass(frozen=True)
class Finished:
    """rc: exit status of ansible-playbook, 254 when it was killed.  interrupted: it was asked to stop, and did."""

    rc: int
    interrupted: bool
    seconds: float


@dataclass
class AnsibleRun:
    """Runs one RunSpec. `become_password` lives in memory and in the child's terminal, nowhere else.

    on_event is called in the caller's thread, in order, once per event; on_tick about ten times a second.
    """

    spec: RunSpec
    cwd: Path
    environment: Mapping[str, str]
    on_event: Callable[[Event], None]
    on_tick: Callable[[], None] = lambda: None
    become_password: str = field(default="", repr=False)
    stop: Stop = field(default_factory=Stop)
    clock: Callable[[], float] = time.monotonic

    def execute(self) -> Finished:
        """Run to the end. Raises KosmosError when Ansible cannot be started, and whatever on_event raises."""
        started = self.clock()
        with _scratch_folder(self.environment) as folder, _stop_on_signals(self.stop):
            session = _Session(self._runner(folder))
            session.thread.start()
            try:
                self._pump(session)
            finally:
                session.end(graceful=False)  # does nothing after a regular end
        if session.error is not None:
            raise KosmosError(
                "Ansible could not be started",
                why=str(session.error),
                cure="Install kosmos-install again, then repeat the command.",
                exit_code=ExitCode.UNREACHABLE,
            ) from session.error
        rc = session.runner.rc
        status = 254 if rc is None else int(rc)
        return Finished(status, self.stop.asked > 0 and status != 0, self.clock() - started)

    def _pump(self, session: _Session) -> None:
        deadline = float("inf")
        while (event := session.next_event()) is not _END:
            if event is not None:
                session.pid = int(event.get("pid") or session.pid)
                self.on_event(event)
            self.on_tick()
            if self.stop.asked and deadline == float("inf"):
                deadline = self.clock() + GRACE_SECONDS
                session.end(graceful=True)
            if self.stop.asked > 1 or self.clock() > deadline:
                session.end(graceful=False)

    def _runner(self, folder: Path) -> Any:
        fixed = dict(_FIXED_ENVIRONMENT)
        fixed["ANSIBLE_HOST_KEY_CHECKING"] = self.environment.get("ANSIBLE_HOST_KEY_CHECKING", "True")
        config = CommandConfig(
            private_data_dir=str(folder),
            host_cwd=str(self.cwd),
            envvars={**self.environment, **fixed},
            passwords={r"BECOME password[^:\n]*:\s*$": self.become_password} if self.become_password else None,
            fact_cache_type="memory",
            ident="run",
            quiet=True,
            suppress_env_files=True,
        )
        program, *arguments = self.spec.argv()
        config.prepare_run_command(_program(program, self.environment), cmdline_args=arguments)
        config.env.pop("ANSIBLE_LOG_PATH", None)  # it would not be redacted; the record holds a log that is
        config.pexpect_timeout = TICK_SECONDS  # how often a wish to stop is looked at
        config.suppress_output_file = True
        return Runner(config)


class _Session:
    """One ansible_runner in its own thread, and the queue through which its events come."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.pid = 0
        self.error: Exception | None = None
        self.killed = False
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="ansible", daemon=True)
        runner.event_handler = self._take
        runner.status_handler = self._forget_environment
        runner.cancel_callback = lambda: self.killed

    def next_event(self) -> Event | None:
        """The next event, None after a tick without one, _END once."""
        try:
            return self._events.get(timeout=TICK_SECONDS)
        except queue.Empty:
            return None

    def end(self, *, graceful: bool) -> None:
        """Ask Ansible to stop (it then ends its workers itself), or kill it and every process it started."""
        if not self.thread.is_alive() or self.killed:
            return
        if graceful and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)
            return
        children = _descendants(self.pid) if self.pid else []
        self.killed = True
        self.thread.join(timeout=10)
        for pid in children:  # workers lead sessions of their own, the group kill does not reach them
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _work(self) -> None:
        try:
            self.runner.run()
        except Exception as error:  # it must reach the caller's thread, whatever it is
            self.error = error
        finally:
            self._events.put(_END)

    def _take(self, event: Event) -> bool:
        if event.get("event") != "EOF":
            self._events.put(event)
        return False  # ansible_runner shall not write it to a file

    def _forget_environment(self, status: Mapping[str, Any], runner_config: Any) -> None:
        if status.get("status") == "running":
            Path(runner_config.artifact_dir, "command").unlink(missing_ok=True)


def _program(name: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(name, path=environment.get("PATH"))
    if found is None:
        raise KosmosError(
            f"{name} is not installed",
            where=f"PATH {environment.get('PATH', '')}",
            cure="Install kosmos-install again: it brings its own ansible-core.",
            exit_code=ExitCode.UNREACHABLE,
        )
    return found


@contextmanager
def _scratch_folder(environment: Mapping[str, str]) -> Iterator[Path]:
    """A 0700 folder, in memory where the system has such a place, removed at the end."""
    places = [environment.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]  # noqa: S108 - mkdtemp makes it private
    parent = Path(
        next((place for place in places if place and os.access(place, os.W_OK | os.X_OK)), tempfile.gettempdir())
    )
    for left in parent.glob(f"{_SCRATCH}*"):
        owner = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_on_signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C, a termination and a closed terminal all end the run; elsewhere than in the main thread, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _descendants(pid: int) -> list[int]:
    """Every living process below `pid`, from /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found
