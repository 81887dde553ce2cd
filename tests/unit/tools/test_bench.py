"""What counts as a module run on the host."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import bench


def event(kind: str, action: str, task: str, role: str = "host_base") -> str:
    data = {"host": "box", "task_uuid": task, "task_action": action, "role": role}
    return json.dumps({"event": kind, "event_data": data})


def test_module_runs_are_counted_by_role_and_item(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text(
        "\n".join(
            [
                json.dumps({"event": "playbook_on_start", "event_data": {}}),
                event("runner_on_start", "kosmos.appliance.file_set", "a"),
                event("runner_on_ok", "kosmos.appliance.file_set", "a"),
                event("runner_item_on_ok", "ansible.builtin.systemd_service", "b"),
                event("runner_item_on_ok", "ansible.builtin.systemd_service", "b"),
                event("runner_on_ok", "ansible.builtin.systemd_service", "b"),
                event("runner_on_skipped", "ansible.builtin.apt", "c"),
                event("runner_on_ok", "ansible.builtin.set_fact", "d"),
                event("runner_on_failed", "ansible.builtin.command", "e", role="net_zones"),
            ]
        )
    )
    assert bench.module_runs(events) == {"host_base": 3, "net_zones": 1}
