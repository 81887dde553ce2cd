"""The kept bad files, and every word of the answers to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kosmos_installer import config
from kosmos_installer.errors import ExitCode, FileError
from kosmos_installer.paths import AnsibleTree

FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("name", ["invalid", "cross-field"])
def test_every_problem_is_told_at_once_with_line_value_reason_and_example(
    name: str, surroundings: config.Surroundings
) -> None:
    content = (FILES / f"{name}.yml").read_text()
    with pytest.raises(FileError) as caught:
        config.parse(content, "kosmos.yml", surroundings)
    assert str(caught.value) + "\n" == (FILES / f"{name}.txt").read_text()
    assert caught.value.exit_code is ExitCode.USAGE


def test_json_carries_the_same_problems(surroundings: config.Surroundings) -> None:
    with pytest.raises(FileError) as caught:
        config.parse((FILES / "invalid.yml").read_text(), "kosmos.yml", surroundings)
    data = caught.value.data()
    assert data["what"] == "19 problems in kosmos.yml"
    assert data["exit_code"] == 2
    assert data["problems"][1] == {
        "path": "kosmos.profile",
        "file": "kosmos.yml",
        "line": 5,
        "reason": "This value is not allowed. Did you mean lab?",
        "found": "labb",
        "wanted": "one of: appliance, lab",
    }


def test_a_right_file_is_read_from_disk(tmp_path: Path, surroundings: config.Surroundings) -> None:
    shipped = Path(__file__).parents[4] / "inventories"
    for inventory in ("example", "lab"):
        appliance = config.load(shipped / inventory / "group_vars/all/kosmos.yml", surroundings)
        assert appliance.network.zones[0].name == "agent_internal"
    assert appliance.name == "lab"
    with pytest.raises(FileError, match=r"1 problem in .*no-such\.yml\n(.|\n)*There is no such file\."):
        config.load(tmp_path / "no-such.yml", surroundings)


def test_the_real_surroundings_know_the_day_and_the_checks_of_this_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = tmp_path / "roles/host_x/checks/x.yml"
    checks.parent.mkdir(parents=True)
    checks.write_text("- {id: host.x.y, title: T, severity: low, probe: {kind: tpm}, needed: 1, cure: C, refs: []}\n")
    monkeypatch.setattr(config, "ansible_tree", lambda: AnsibleTree(tmp_path, tmp_path, "checkout"))
    real = config.Surroundings.real()
    assert real.today.year >= 2026
    assert real.check_ids() == {"host.x.y"}
