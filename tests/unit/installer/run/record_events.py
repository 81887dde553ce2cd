"""Record what ansible_runner really reports, for the reducer's tests.

`PYTHONPATH=. python tests/unit/installer/run/record_events.py [CASE...]` runs the small playbooks of project/ on this
machine (connection local, work in a temporary folder) and writes one events/<case>.jsonl each. Folders of this machine
are replaced, so that the files are the same wherever they are made.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kosmos_installer.paths import ansible_tree
from kosmos_installer.plan import Options, RunSpec, Verb
from kosmos_installer.runner import AnsibleRun, Stop

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "project"
EVENTS = HERE / "events"


@dataclass(frozen=True)
class Case:
    """One run: the case file of role net_gamma, the playbook, and what differs from a plain apply."""

    case: str
    playbook: str = "site.yml"
    options: Options = field(default_factory=Options)
    extra: tuple[tuple[str, str], ...] = ()
    stop_at: str = ""  # name of the task during which somebody presses Ctrl-C


CASES = {
    "ok": Case("ok"),
    "plan": Case("ok", options=Options(check=True, diff=True)),
    "rescued": Case("ok", extra=(("fast", "yes"),)),
    "failure": Case("failure"),
    "rescued_then_failure": Case("failure", extra=(("fast", "yes"),)),
    "loop_failure": Case("loop_failure"),
    "undefined": Case("undefined"),
    "unreachable": Case("ok", extra=(("target", "far"),)),
    "two_hosts": Case("ok", extra=(("target", "all"),)),
    "interrupted": Case("slow", stop_at="Wait for the far end"),
    "syntax": Case("ok", playbook="broken.yml"),
    "verify": Case("ok", playbook="verify.yml"),
    "preflight": Case("ok", playbook="verify.yml", extra=(("phase", "preflight"), ("enforce", "yes"))),
    "nobody": Case("ok", playbook="nobody.yml"),
    "secret": Case("secret", options=Options(tags=("net",))),
    "slow": Case("slow", options=Options(tags=("net",))),
}


_NOT_RECORDED = {"secret", "slow"}  # only run, by test_run_canaries.py and test_run_whole.py


def environment(home: Path) -> dict[str, str]:
    """What a run of the project needs, independent of the product's own tree."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ansible_tree().collections),
        "ANSIBLE_ROLES_PATH": str(PROJECT / "roles"),
        "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
        "ANSIBLE_REMOTE_TMP": str(home / "remote"),
        "LC_ALL": "C.UTF-8",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def spec(case: Case, work: Path) -> RunSpec:
    """The RunSpec of a case, with its working folder as an extra variable."""
    return RunSpec(
        verb=Verb.APPLY,
        name="demo",
        playbook=PROJECT / "playbooks" / case.playbook,
        inventory=PROJECT / "hosts.yml",
        options=case.options,
        tags=case.options.tags,
        extra_vars=(("case", case.case), ("work", str(work)), *case.extra),
    )


def run(case: Case, work: Path) -> tuple[list[dict[str, Any]], int]:
    """Run one case; its events in order, and the exit status of ansible-playbook."""
    events: list[dict[str, Any]] = []
    stop = Stop()

    def take(event: dict[str, Any]) -> None:
        events.append(event)
        if case.stop_at and event["event"] == "runner_on_start" and event["event_data"]["task"] == case.stop_at:
            threading.Timer(1.0, stop.ask).start()

    finished = AnsibleRun(spec(case, work), PROJECT, environment(work), take, stop=stop).execute()
    return events, finished.rc


def main(names: list[str]) -> int:
    """Record the named cases, or all."""
    EVENTS.mkdir(exist_ok=True)
    for name in names or [name for name in CASES if name not in _NOT_RECORDED]:
        with tempfile.TemporaryDirectory(prefix="kosmos-record-") as folder:
            events, rc = run(CASES[name], Path(folder))
            known = {str(PROJECT): "/kosmos", folder: "/made", sys.prefix: "/venv", str(Path.home()): "/home/op"}
            lines = [json.dumps(event, sort_keys=True, ensure_ascii=False) for event in events]
        text = "".join(f"{line}\n" for line in lines)
        for found, shown in known.items():
            text = text.replace(found, shown)
        (EVENTS / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: exit status {rc}, {len(lines)} events")  # noqa: T201 - a script tells what it did
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
