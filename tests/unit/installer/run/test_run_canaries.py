"""Secrets are planted in every place where a run may meet one; then everything that the run leaves is searched."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import record_events

from kosmos_installer import targets
from kosmos_installer.operation import Operation
from kosmos_installer.outcome import Outcome
from kosmos_installer.plan import Options
from kosmos_installer.redact import MASK
from kosmos_installer.view import Mode, make_view

CANARIES = {
    "become password": "canary-Gk3become",
    "environment": "canary-Hw7environ",
    "inventory variable": "canary-Pq1variable",
    "no_log argument": "canary-Zt9nolog",
    "private key": "canaryMx4privatekey",
    "file content": "canary-Lb6content",
}

SUDO = """#!/bin/sh
# Asks as sudo does, and lets in only who knows the password.
while [ $# -gt 0 ]; do
  case "$1" in -p) prompt=$2; shift 2;; -u) shift 2;; -*) shift;; *) break;; esac
done
printf '%s' "$prompt" >&2
read -r answer
[ "$(printf '%s' "$answer" | sha256sum | cut -d' ' -f1)" = "@HASH@" ] || { echo "Sorry, try again." >&2; exit 1; }
exec "$@"
"""

INVENTORY = """---
appliance:
  hosts:
    box:
      ansible_connection: local
      ansible_python_interpreter: /usr/bin/python3
      ansible_become_exe: {sudo}
      db_password: {variable}
      hidden_value: {nolog}
      file_value: {content}
      key_file: {key}
"""


@dataclass
class Watcher:
    """Reads the command lines of all processes, again and again, while the run lasts."""

    seen: set[bytes] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(0.03):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


@dataclass
class Run:
    """What is left of it."""

    outcome: Outcome
    printed: str
    commands: set[bytes]
    folder: Path


def operation(folder: Path, view_mode: Mode, out: io.StringIO) -> Operation:
    sudo = folder / "sudo"
    sudo.write_text(SUDO.replace("@HASH@", hashlib.sha256(CANARIES["become password"].encode()).hexdigest()))
    sudo.chmod(0o700)
    key = folder / "id_key"
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{CANARIES['private key']}\n-----END PRIVATE KEY-----\n")
    inventory = folder / "hosts.yml"
    values = {
        "sudo": sudo,
        "key": key,
        "variable": CANARIES["inventory variable"],
        "nolog": CANARIES["no_log argument"],
        "content": CANARIES["file content"],
    }
    inventory.write_text(INVENTORY.format(**values))
    work = folder / "work"
    work.mkdir()
    environment = {**record_events.environment(work), "KOSMOS_TEST_TOKEN": CANARIES["environment"]}
    spec = record_events.spec(record_events.CASES["secret"], work)
    return Operation(
        spec=replace(spec, inventory=inventory, options=Options(diff=True, verbosity=3, ask_become_pass=True)),
        targets=targets.read(inventory, environment),
        environment=environment,
        cwd=record_events.PROJECT,
        state_dir=folder / "state",
        view=make_view(view_mode, out, out, show_diff=True),
        become_password=CANARIES["become password"],
    )


@pytest.fixture(scope="module", params=[Mode.AUTO, Mode.JSON], ids=lambda mode: mode.value)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("canaries")
    out, watcher = io.StringIO(), Watcher()
    thread = threading.Thread(target=watcher.watch, daemon=True)
    thread.start()
    try:
        outcome = operation(folder, request.param, out).execute()
    finally:
        watcher.over.set()
        thread.join()
    return Run(outcome, out.getvalue(), watcher.seen, folder)


def test_the_secrets_were_really_used(run: Run) -> None:
    """Else their absence would prove nothing."""
    failure = run.outcome.failure
    assert failure is not None
    assert failure.message == f"login with {MASK} was refused"
    assert {task.name: task.status for task in run.outcome.state.tasks}["Become somebody else with a password"] == "ok"
    work = run.folder / "work"
    assert CANARIES["no_log argument"] in (work / "hidden").read_text()
    assert CANARIES["file content"] in (work / "credentials").read_text()
    assert any(b"ansible-playbook" in command for command in run.commands)


@pytest.mark.parametrize("place", CANARIES)
def test_no_secret_is_recorded(run: Run, place: str) -> None:
    record = Path(run.outcome.record)
    names = {path.name for path in record.iterdir()}
    assert {"events.jsonl", "log.txt", "spec.json", "summary.json"} == names
    for path in record.iterdir():
        text = path.read_text(encoding="utf-8")
        assert CANARIES[place] not in text, path
        assert MASK in text or path.name == "spec.json", path


@pytest.mark.parametrize("place", CANARIES)
def test_no_secret_is_shown(run: Run, place: str) -> None:
    assert CANARIES[place] not in run.printed
    assert MASK in run.printed


@pytest.mark.parametrize("place", CANARIES)
def test_no_secret_is_on_a_command_line(run: Run, place: str) -> None:
    assert [command for command in run.commands if CANARIES[place].encode() in command] == []


def test_nothing_else_stays_behind(run: Run) -> None:
    places = ["/dev/shm", os.environ.get("XDG_RUNTIME_DIR") or "/dev/shm"]
    assert [path for place in places for path in Path(place).glob(f"kosmos-run-{os.getpid()}-*")] == []
    assert {path.name for path in (run.folder / "state").iterdir()} == {"runs", "locks"}
