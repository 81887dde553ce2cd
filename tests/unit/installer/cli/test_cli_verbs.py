"""The verbs that need no host: validate, schema, checks, version; and which appliance they are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Command

from kosmos_installer import paths, schema, verbs_local
from kosmos_installer.paths import AnsibleTree

ROOT = Path(__file__).parents[4]
CHECKS = """\
- id: host.time.synchronised
  title: The clock is kept by chrony
  severity: high
  probe: {kind: unit, name: chrony.service, property: ActiveState}
  needed: active
  cure: Run kosmos-install apply --only host_base.
  refs: [CIS 2.3.2.1, ANSSI R1]
  when: "{{ host_base_time }}"
- {id: host.apt.lock, title: Nobody uses apt, phase: preflight, severity: low, probe: {kind: apt_lock},
   needed: {absent: true}, cure: Wait., refs: []}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnsibleTree:
    """An Ansible half with one role, its two checks, and one shipped inventory."""
    root = tmp_path / "tree"
    (root / "roles/host_base/checks").mkdir(parents=True)
    (root / "roles/host_base/checks/time.yml").write_text(CHECKS)
    (root / "inventories").mkdir()
    (root / "inventories/lab").symlink_to(ROOT / "inventories/lab")
    made = AnsibleTree(root, root, "wheel")
    monkeypatch.setattr(paths, "ansible_tree", lambda: made)
    return made


@pytest.fixture
def mine(home: Path, command: Command, flags: Callable[..., list[str]]) -> Path:
    """One appliance in the current folder."""
    assert command("init", *flags()).code == 0
    return home / "inventories/kosmos-1"


# --- validate ---------------------------------------------------------------------------------------------------------


def test_a_right_appliance_is_told_in_four_lines(mine: Path, command: Command) -> None:
    answer = command("validate")
    assert answer.code == 0
    assert answer.out == (
        "inventories/kosmos-1/group_vars/all/kosmos.yml is valid.\n"
        "  appliance: kosmos-1, profile appliance\n"
        "  host:      kosmos-1.kosmos.internal (kosmos-1 in hosts.yml)\n"
        "  zones:     agent_internal (VLAN 100, 10.0.1.0/24), api_gateway (VLAN 200, 10.0.2.0/24)\n"
        "Next: kosmos-install preflight -i inventories/kosmos-1\n"
    )


def test_json_gives_every_setting_with_its_default(mine: Path, command: Command) -> None:
    answer = command("validate", "--json")
    assert answer.code == 0
    assert answer.json["valid"] is True
    assert answer.json["hosts"] == ["kosmos-1"]
    assert answer.json["kosmos"]["management"]["allowed_cidrs"] == ["192.0.2.0/24", "2001:db8::/48"]
    assert answer.json["kosmos"]["timezone"] == "Etc/UTC"


def test_a_wrong_appliance_is_exit_2_with_the_line(mine: Path, command: Command) -> None:
    file = mine / "group_vars/all/kosmos.yml"
    file.write_text(file.read_text().replace("trunk: eno2", "trunk: eno1"))
    answer = command("validate")
    assert answer.code == 2
    assert "where:  inventories/kosmos-1/group_vars/all/kosmos.yml:" in answer.err
    assert "The management interface is inside the trunk eno1" in answer.err
    problems = command("validate", "--json").json["error"]["problems"]
    assert [problem["path"] for problem in problems] == ["kosmos.management.interface"]


@pytest.mark.parametrize(
    "text", ["all:\n  hosts: {x: {}}\n", "appliance:\n  hosts: {}\n", "appliance: [x]\n", "[appliance]\nhost\n", ""]
)
def test_hosts_without_an_appliance_are_refused(text: str, mine: Path, command: Command) -> None:
    (mine / "hosts.yml").write_text(text)
    answer = command("validate")
    assert answer.code == 2
    assert "1 problem in inventories/kosmos-1/hosts.yml" in answer.err


@pytest.mark.parametrize(
    "text",
    [
        "appliance: {hosts: {box: {ansible_become_password: !vault x, n: 0100}}}\n",
        "all: {children: {appliance: {hosts: {box: }}}}\n",
        "appliance: {children: {racks: {hosts: {box: {ansible_host: '{{ x }}'}}}}}\n",
    ],
)
def test_hosts_may_be_written_in_every_way_that_ansible_takes(text: str, mine: Path, command: Command) -> None:
    (mine / "hosts.yml").write_text(text)
    answer = command("validate")
    assert answer.code == 0
    assert "(box in hosts.yml)" in answer.out


def test_both_files_are_judged_at_once(mine: Path, command: Command) -> None:
    (mine / "hosts.yml").write_text("{}\n")
    (mine / "group_vars/all/kosmos.yml").write_text("{}\n")
    answer = command("validate")
    assert answer.code == 2
    assert (
        "error: 2 problems in inventories/kosmos-1/group_vars/all/kosmos.yml, inventories/kosmos-1/hosts.yml"
        in answer.err
    )


# --- which appliance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["inventories/kosmos-1", "inventories/kosmos-1/", "inventories/kosmos-1/hosts.yml", "kosmos-1", "lab"]
)
def test_an_appliance_is_named_by_folder_file_or_name(
    given: str, mine: Path, tree: AnsibleTree, command: Command
) -> None:
    assert command("validate", "-i", given).code == 0
    assert command("validate", "--inventory", given).code == 0


def test_without_any_the_next_step_is_named(home: Path, command: Command) -> None:
    answer = command("validate")
    assert answer.code == 2
    assert "error: There is no appliance in this folder" in answer.err
    assert "kosmos-install init" in answer.err


def test_two_are_a_question(mine: Path, command: Command, flags: Callable[..., list[str]]) -> None:
    assert command("init", *flags(name="other")).code == 0
    answer = command("validate")
    assert answer.code == 2
    assert "Which appliance?" in answer.err
    assert "Found: kosmos-1, other." in answer.err


def test_the_example_and_unfinished_folders_do_not_count(mine: Path, home: Path, command: Command) -> None:
    for name in ("example", ".kosmos-2-x7"):
        (mine.parent / name / "group_vars/all").mkdir(parents=True)
        (mine.parent / name / "group_vars/all/kosmos.yml").touch()
    assert "appliance: kosmos-1" in command("validate").out


def test_an_unknown_name_lists_the_known(mine: Path, command: Command) -> None:
    answer = command("validate", "-i", "kosmos-2")
    assert answer.code == 2
    assert "error: There is no inventory kosmos-2" in answer.err
    assert "Found: kosmos-1." in answer.err
    assert "There is none in ./inventories." not in answer.err


def test_an_unknown_name_in_an_empty_folder(home: Path, command: Command) -> None:
    assert "There is none in ./inventories." in command("validate", "-i", "kosmos-2").err


@pytest.mark.parametrize("missing", ["hosts.yml", "group_vars/all/kosmos.yml"])
def test_half_an_inventory_is_told(missing: str, mine: Path, command: Command) -> None:
    (mine / missing).unlink()
    answer = command("validate", "-i", "kosmos-1")
    assert answer.code == 2
    assert f"where: inventories/kosmos-1/{missing}" in answer.err


# --- schema, version --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("schema",), ("schema", "--json")])
def test_the_schema_is_printed(words: tuple[str, ...], command: Command) -> None:
    answer = command(*words)
    assert answer.code == 0
    assert answer.out == schema.text()


def test_version_says_what_is_inside(command: Command) -> None:
    facts = command("version", "--json").json
    assert set(facts) == {"kosmos-install", "ansible-core", "ansible-runner", "python", "collection", "origin"}
    assert facts["collection"] == str(ROOT)
    assert f"ansible-core:   {facts['ansible-core']}\n" in command("version").out


# --- checks -----------------------------------------------------------------------------------------------------------


def test_checks_are_listed(tree: AnsibleTree, command: Command) -> None:
    assert command("checks", "list").out == (
        "ID                      ROLE       PHASE      SEVERITY  TITLE\n"
        "host.apt.lock           host_base  preflight  low       Nobody uses apt\n"
        "host.time.synchronised  host_base  verify     high      The clock is kept by chrony\n"
        "\n"
        "2 checks. One of them in full: kosmos-install checks show ID\n"
    )


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ((), ["host.apt.lock", "host.time.synchronised"]),
        (("--role", "host_base"), ["host.apt.lock", "host.time.synchronised"]),
        (("--phase", "preflight"), ["host.apt.lock"]),
        (("--phase", "clean"), []),
        (("--severity", "medium"), ["host.time.synchronised"]),
        (("--severity", "low"), ["host.apt.lock", "host.time.synchronised"]),
    ],
)
def test_checks_are_chosen(words: tuple[str, ...], ids: list[str], tree: AnsibleTree, command: Command) -> None:
    assert [check["id"] for check in command("checks", "list", "--json", *words).json] == ids


@pytest.mark.parametrize(
    ("words", "what", "why"),
    [
        (("--role", "host_bse"), "There is no role host_bse with checks", "Did you mean host_base?"),
        (("--phase", "before"), "There is no phase before", ""),
        (("--severity", "hih"), "There is no severity hih", "Did you mean high?"),
    ],
)
def test_a_wrong_choice_is_told(
    words: tuple[str, ...], what: str, why: str, tree: AnsibleTree, command: Command
) -> None:
    answer = command("checks", "list", *words)
    assert answer.code == 2
    assert what in answer.err
    assert why in answer.err
    assert "cure:  One of: " in answer.err


def test_one_check_is_shown_in_full(tree: AnsibleTree, command: Command) -> None:
    assert command("checks", "show", "host.time.synchronised").out == (
        "host.time.synchronised\n"
        "  title:    The clock is kept by chrony\n"
        "  role:     host_base, phase verify, severity high\n"
        "  probe:    {kind: unit, name: chrony.service, property: ActiveState}\n"
        "  needed:   active\n"
        "  only if:  {{ host_base_time }}\n"
        "  cure:     Run kosmos-install apply --only host_base.\n"
        "  sources:  CIS 2.3.2.1, ANSSI R1\n"
        "  declared: roles/host_base/checks/time.yml:1\n"
    )
    shown = command("checks", "show", "host.apt.lock", "--json").json
    assert (shown["phase"], shown["needed"], shown["refs"]) == ("preflight", {"absent": True}, [])


def test_an_unknown_check_names_the_nearest(tree: AnsibleTree, command: Command) -> None:
    answer = command("checks", "show", "host.time.synchronized")
    assert answer.code == 2
    assert "why:   Did you mean host.time.synchronised?" in answer.err
    assert "Did you mean" not in command("checks", "show", "zzz").err


CHECK = {"id": "a.b.c", "title": "T", "severity": "low", "probe": {"kind": "tpm"}, "needed": 1, "cure": "C", "refs": []}

BAD_CHECKS = [
    ("a: 1\n", "(whole file)", "The file must be a list of checks."),
    ("[x]\n", "[0]", "A check is a mapping."),
    ("- {a: [}\n", "(whole file)", "This is not YAML"),
    (CHECK | {"id": "a.b"}, "[0].id", "The id does not have the form layer.area.what."),
    (CHECK | {"id": 5}, "[0].id", "It must be text."),
    (CHECK | {"title": " "}, "[0].title", "It must be text."),
    (CHECK | {"severity": "urgent"}, "[0].severity", "Not allowed."),
    (CHECK | {"phase": "after"}, "[0].phase", "Not allowed."),
    (CHECK | {"probe": "tpm"}, "[0].probe", "A probe has a kind."),
    (CHECK | {"refs": "CIS"}, "[0].refs", "It must be a list of text."),
    ({key: value for key, value in CHECK.items() if key != "cure"}, "[0].cure", "This key is required."),
]


@pytest.mark.parametrize(("content", "path", "reason"), BAD_CHECKS)
def test_a_wrong_check_file_is_named(
    content: object, path: str, reason: str, tree: AnsibleTree, command: Command
) -> None:
    text = content if isinstance(content, str) else json.dumps([content])
    (tree.roles / "host_base/checks/bad.yml").write_text(text)
    answer = command("checks", "list")
    assert answer.code == 2
    assert "error: 1 problem in roles/host_base/checks/bad.yml" in answer.err
    assert f"\n  {path}\n    where:  roles/host_base/checks/bad.yml:1\n" in answer.err
    assert reason in answer.err


def test_an_empty_check_file_is_told(tree: AnsibleTree, command: Command) -> None:
    (tree.roles / "host_base/checks/bad.yml").write_text("")
    assert "The file is empty." in command("checks", "list").err


def test_two_checks_of_one_id_are_told_with_both_places(tree: AnsibleTree, command: Command) -> None:
    (tree.roles / "host_base/checks/twin.yml").write_text(json.dumps([CHECK | {"id": "host.apt.lock"}]))
    answer = command("checks", "list")
    assert answer.code == 2
    assert "roles/host_base/checks/twin.yml:1" in answer.err
    assert "The id stands in roles/host_base/checks/time.yml:9 too." in answer.err


def test_verbs_take_json() -> None:
    import inspect

    verbs = (verbs_local.init, verbs_local.validate, verbs_local.schema, verbs_local.version)
    for verb in (*verbs, verbs_local.checks_list, verbs_local.checks_show):
        assert "as_json" in inspect.signature(verb).parameters
