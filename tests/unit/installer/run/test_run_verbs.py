"""The verbs as an operator types them, against the small playbooks of project/."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import record_events

from kosmos_installer import commands
from kosmos_installer.cli import main
from kosmos_installer.paths import AnsibleTree

ROOT = Path(__file__).parents[4]
HOSTS = """---
appliance:
  hosts:
    box:
      ansible_connection: local
      ansible_python_interpreter: /usr/bin/python3
      case: {case}
      work: {work}
"""


@dataclass
class Answer:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


Type = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's folder with one appliance, `lab`, whose host is this machine."""
    work = tmp_path / "work"
    work.mkdir()
    inventory = tmp_path / "inventories/lab"
    shutil.copytree(ROOT / "inventories/lab/group_vars", inventory / "group_vars")
    (inventory / "hosts.yml").write_text(HOSTS.format(case="ok", work=work))
    tree = AnsibleTree(record_events.PROJECT, ROOT / "collections", "checkout")
    monkeypatch.setattr(commands, "ansible_tree", lambda: tree)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ANSIBLE_LOCAL_TEMP", str(tmp_path / "tmp"))
    monkeypatch.setenv("ANSIBLE_REMOTE_TMP", str(tmp_path / "remote"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(home: Path, capfd: pytest.CaptureFixture[str]) -> Type:
    """Type a command in that folder."""

    def run(*words: str) -> Answer:
        code = main(words)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


def test_plan_then_apply_then_apply_again(home: Path, typed: Type) -> None:
    planned = typed("plan", "--only", "host", "--json").data
    assert [(change["role"], len(change["paths"])) for change in planned["changes"]] == [
        ("host_alpha", 3),
        ("host_beta", 1),
    ]
    assert planned["next"] == "kosmos-install apply --only host"
    assert list((home / "work").iterdir()) == []
    first = typed("apply", "--only", "host", "--json").data
    assert (first["exit_code"], first["changed"], first["next"]) == (0, 3, "kosmos-install verify --only host")
    assert {path.name for path in (home / "work").iterdir()} == {"one.conf", "two.conf", "three.conf", "greeting"}
    again = typed("apply", "-i", "lab", "--only", "host_beta")
    assert again.code == 0
    assert "✔ lab is applied: nothing had to be changed in" in again.out
    assert "host_alpha" not in again.out


def test_a_failed_apply_says_how_to_resume(home: Path, typed: Type) -> None:
    hosts = home / "inventories/lab/hosts.yml"
    hosts.write_text(hosts.read_text().replace("case: ok", "case: failure"))
    answer = typed("apply", "--tags", "net", "--diff", "-q")
    assert (answer.code, answer.out) == (1, "")
    assert "evidence     rules.nft:7: syntax error" in answer.err
    assert answer.err.endswith("  resume  kosmos-install apply --tags net --diff\n")


def test_preflight_refuses_and_verify_fails_with_reports(home: Path, typed: Type) -> None:
    refused = typed("preflight")
    assert refused.code == 3
    assert "cure    Switch the firmware to UEFI and install Debian again." in refused.out
    failed = typed("verify", "--json")
    assert (failed.code, failed.data["checks"]["counts"]["failed"]) == (5, 1)
    assert Path(failed.data["report"]).read_text().startswith("<!doctype html>")
    status = typed("status")
    assert status.code == 0
    assert "preflight  preflight_refused after" in status.out
    assert "1 of 3 checks passed; failed: host.alpha.root_login" in status.out
    assert typed("status", "--json").data["last_verify"]["failed"] == ["host.alpha.root_login"]


def test_reset_wants_the_name_first(typed: Type) -> None:
    for words in ((), ("--confirm", "prod")):
        answer = typed("reset", *words)
        assert (answer.code, answer.out) == (2, "")
        assert "kosmos-install reset --confirm lab" in answer.err
    assert typed("reset", "--confirm", "lab", "-q").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("apply", "--only", "hots"), "Did you mean 'host'?"),
        (("apply", "--only", "host", "--tags", "x"), "--only and --tags cannot be given together"),
        (("plan", "-i", "nowhere"), "There is no inventory nowhere"),
        (("apply", "--no-such-flag"), "--no-such-flag"),
        (("apply", "--limit", "nobody"), "No host of the inventory matches."),
    ],
)
def test_wrong_questions(typed: Type, words: tuple[str, ...], said: str) -> None:
    answer = typed(*words)
    assert answer.code == 2
    assert said in answer.out + answer.err
    as_json = typed(*words, "--json")
    assert as_json.code == 2
    assert json.loads(as_json.out)


def test_an_invalid_appliance_file_stops_before_ansible(home: Path, typed: Type) -> None:
    path = home / "inventories/lab/group_vars/all/kosmos.yml"
    path.write_text(path.read_text().replace("profile: lab", "profile: labb"))
    answer = typed("apply")
    assert answer.code == 2
    assert "kosmos.profile" in answer.err
    assert not (home / "state").exists()


def test_support_bundle(home: Path, typed: Type) -> None:
    typed("verify", "-q")
    answer = typed("support-bundle", "-o", str(home / "b.tar.gz"))
    assert answer.code == 0
    assert "secrets masked" in answer.out
    with tarfile.open(home / "b.tar.gz") as archive:
        names = [name.removeprefix("kosmos-support-lab/") for name in archive.getnames()]
        facts = archive.extractfile("kosmos-support-lab/host-facts.txt")
        assert facts is not None
        assert b"box | SUCCESS" in facts.read()
    assert {"versions.json", "inventory/hosts.yml", "inventory/group_vars/all/kosmos.yml"} < set(names)
    assert typed("support-bundle", "-o", str(home / "c.tar.gz"), "--json").data["files"] == names
