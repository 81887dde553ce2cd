"""The action plugin and the module together, through ansible-playbook on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from check_bed import REPOSITORY

GOOD = """\
- id: host.demo.value
  title: The value of {{ demo_key }}
  severity: high
  probe: {kind: keyvalue, paths: ["/etc/{{ demo_key }}.conf"], key: answer, separator: "="}
  needed: "{{ demo_answer }}"
  cure: "Write answer={{ demo_answer }}"
  refs: []
- id: host.demo.other
  title: Not here
  severity: low
  probe: {kind: file, path: "{{ not_defined_anywhere }}"}
  needed: true
  cure: none
  refs: []
  when: "{{ demo_answer != 42 }}"
  skip_reason: "the answer is {{ demo_answer }}"
- id: host.demo.before
  title: Another phase
  phase: preflight
  severity: low
  probe: {kind: file, path: /nowhere}
  needed: true
  cure: none
  refs: []
"""
PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  roles: [demo]
  post_tasks:
    - name: Conclude
      kosmos.appliance.host_check:
        conclude: "{{ ansible_facts.kosmos_check_results | default({}) }}"
"""
TASK = """\
- name: Check
  kosmos.appliance.host_check:
    path: "{{ role_path }}/checks"
    root: "{{ demo_root }}"
    enforce: "{{ demo_enforce }}"
    phase: "{{ demo_phase | default('verify') }}"
    waivers: "{{ demo_waivers | default([]) }}"
"""


class Bed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("tasks/main.yml", TASK), ("checks/a.yml", GOOD)):
            self.write(f"roles/demo/{name}", text)
        self.write("ansible.cfg", "[defaults]\n")
        self.write("play.yml", PLAY)
        self.write("root/etc/deep.conf", "answer=42\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *flags: str, **variables: Any) -> dict[str, Any]:
        """Run the play; return the last result of each task by name."""
        values = {"demo_key": "deep", "demo_answer": 42, "demo_root": str(self.folder / "root"), "demo_enforce": True}
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        }
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-v", "play.yml", *flags]
        command += ["-e", json.dumps(values | variables)]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        found: dict[str, Any] = {"rc": done.returncode, "text": done.stdout + done.stderr}
        decoder = json.JSONDecoder()
        task = ""
        for line_start, line in _lines(done.stdout):
            if line.startswith("TASK ["):
                task = line[6 : line.rindex("]")].split(" : ")[-1]
            elif " => " in line and line.startswith(("ok:", "fatal:", "changed:")):
                found[task], _ = decoder.raw_decode(done.stdout, line_start + line.index(" => ") + 4)
        return found


def _lines(text: str) -> list[tuple[int, str]]:
    starts, position = [], 0
    for line in text.splitlines(keepends=True):
        starts.append((position, line))
        position += len(line)
    return starts


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_values_are_rendered_and_other_phases_left_out(bed: Bed) -> None:
    run = bed.run()
    first, second = run["Check"]["results"]
    assert run["rc"] == 0, run["text"]
    assert (first["pass"], first["found"], first["title"], first["role"]) == (True, "42", "The value of deep", "demo")
    assert (second["skipped"], second["reason"]) == (True, "the answer is 42")
    assert run["Check"]["summary"] == {"total": 2, "passed": 1, "failed": 0, "waived": 0, "skipped": 1}
    assert run["Check"]["changed"] is False
    assert run["Check"]["ansible_facts"]["kosmos_check_results"]["demo"]["summary"]["passed"] == 1


def test_check_mode_is_the_same(bed: Bed) -> None:
    assert bed.run("--check")["Check"]["results"] == bed.run()["Check"]["results"]


def test_enforce_fails_once_with_found_needed_and_cure(bed: Bed) -> None:
    bed.write("root/etc/deep.conf", "answer=41\n")
    run = bed.run()
    assert run["rc"] == 2
    assert run["Check"]["msg"].splitlines() == [
        "1 of 2 checks failed:",
        "  host.demo.value [high] The value of deep",
        "    found: 41   needed: 42",
        "    evidence: /etc/deep.conf: answer",
        "    cure: Write answer=42",
    ]


def test_without_enforce_the_conclusion_fails(bed: Bed) -> None:
    bed.write("root/etc/deep.conf", "answer=41\n")
    run = bed.run(demo_enforce=False)
    assert run["Check"]["summary"]["failed"] == 1
    assert run["Conclude"]["msg"].startswith("1 of 2 checks failed:")
    assert run["rc"] == 2


def test_a_conclusion_without_any_result_fails(bed: Bed) -> None:
    bed.write("roles/demo/tasks/main.yml", "[]\n")
    assert "nothing is proved" in bed.run()["Conclude"]["msg"]


def test_a_waiver_covers_until_its_last_day(bed: Bed) -> None:
    bed.write("root/etc/deep.conf", "answer=41\n")
    waiver = {"id": "host.demo.value", "reason": "known", "expires": "2999-01-01"}
    run = bed.run(demo_waivers=[waiver])
    assert run["rc"] == 0, run["text"]
    assert run["Check"]["results"][0]["waived"]
    late = bed.run(demo_waivers=[waiver | {"expires": "2020-01-01"}])
    assert late["rc"] == 2
    assert "note: its waiver expired on 2020-01-01: known" in late["Check"]["msg"]


def test_waivers_of_other_roles_are_known_and_of_no_role_refused(bed: Bed) -> None:
    bed.write("roles/neighbour/checks/b.yml", "- id: net.other.thing\n")
    waiver = {"id": "net.other.thing", "reason": "known", "expires": "2999-01-01"}
    assert bed.run(demo_waivers=[waiver])["rc"] == 0
    run = bed.run(demo_waivers=[waiver | {"id": "net.no.such"}])
    assert "waiver net.no.such: there is no check of that id" in run["text"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\n", "the file is not a list"),
        (GOOD.replace("severity: high", "severity: hi"), "check host.demo.value: severity is 'hi'"),
        (GOOD.replace("host.demo.other", "host.demo.value"), "the id is used twice"),
        (GOOD.replace("kind: keyvalue", "kind: keyvalu"), "there is no probe kind 'keyvalu'"),
        (GOOD.replace("demo_key }}.conf", "demo_nokey }}.conf"), "check host.demo.value: cannot be rendered"),
        (GOOD.replace("demo_answer != 42", "demo_answer"), "`when` is 42, not true or false"),
    ],
)
def test_faults_of_a_check_file_name_file_id_and_cure(bed: Bed, text: str, what: str) -> None:
    bed.write("roles/demo/checks/a.yml", text)
    run = bed.run()
    message = " ".join(run["Check"]["msg"].split())
    assert what in message
    assert "roles/demo/checks/a.yml" in message
    assert "Cure: " in message


def test_a_role_without_check_files_is_told(bed: Bed) -> None:
    (bed.folder / "roles/demo/checks/a.yml").unlink()
    assert "no check file" in bed.run()["Check"]["msg"]
