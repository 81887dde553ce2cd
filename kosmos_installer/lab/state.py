"""What a machine directory has running: processes by pid and start time, so that a recycled pid is never ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 1


def boot_id() -> str:
    """Return the identity of this boot of the operator's machine: pids and start times mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return when `pid` began, in clock ticks since boot; None when it is gone or a zombie (proc(5), stat field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the program's name may hold spaces and brackets
    return None if fields[0] in {"Z", "X"} else int(fields[19])


@dataclass(frozen=True)
class Process:
    """One process of ours: its role (qemu, swtpm, trunk), pid, start in ticks since boot, and that boot."""

    role: str
    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, role: str, pid: int) -> Process:
        """Record a process that was just started; one that has already ended gets a start that matches nothing."""
        return cls(role, pid, start_ticks(pid) or -1, boot_id())

    def alive(self) -> bool:
        """Tell whether exactly this process still runs."""
        return self.boot == boot_id() and start_ticks(self.pid) == self.started

    def kill(self, number: signal.Signals = signal.SIGKILL, *, wait_seconds: float = 10.0) -> None:
        """Send `number` to this process only, and wait until it is gone."""
        if not self.alive():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        deadline = time.monotonic() + wait_seconds
        while self.alive() and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            time.sleep(0.02)


@dataclass
class State:
    """The contents of state.json. `spec` and `accelerator` describe the machine that runs or ran last.

    ready: it has answered since the last start, so its disks are worth starting again.
    home: the machine that `up` was asked for, to which `reset` returns after a fault test changed `spec`.
    sockets: their directory, empty when nothing runs.  console_from: length of the console log at the last start.
    """

    processes: list[Process] = field(default_factory=list)
    ssh_port: int = 0
    sockets: str = ""
    console_from: int = 0
    ready: bool = False
    spec: dict[str, Any] = field(default_factory=dict)
    home: dict[str, Any] = field(default_factory=dict)
    accelerator: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> State:
        """Read `file`; an absent file is an empty state."""
        try:
            data = json.loads(file.read_text())
        except FileNotFoundError:
            return cls()
        processes = [Process(**one) for one in data.pop("processes")]
        known = {one.name for one in fields(cls)}  # a field of another version says nothing here
        return cls(processes=processes, **{name: value for name, value in data.items() if name in known})

    def save(self, file: Path) -> None:
        """Replace `file` in one step, readable by its owner only."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            json.dump({"schema": SCHEMA, **asdict(self)}, handle, indent=2)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(file)

    def find(self, role: str) -> Process | None:
        """Return the living process of that role, if any."""
        return next((one for one in self.processes if one.role == role and one.alive()), None)


def stop_all(file: Path) -> None:
    """End whatever `file` records (QEMU first) and remove the sockets; right for a crashed machine too."""
    state = State.load(file)
    for process in sorted(state.processes, key=lambda one: one.role != "qemu"):
        process.kill()
    if state.sockets:
        shutil.rmtree(state.sockets, ignore_errors=True)
    if state.processes or state.sockets:
        state.processes, state.sockets = [], ""
        state.save(file)
