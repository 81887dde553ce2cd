"""A verb and its options become exactly one ansible-playbook command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.plan import Options, RoleMap, RunSpec, Verb, layer_of, make_spec

ROLES = RoleMap(("cluster_gvisor", "host_base", "host_hardening", "net_zones"))
HEAD = ["ansible-playbook", "-i", "/inv/lab"]


def made(verb: Verb = Verb.APPLY, **options: Any) -> RunSpec:
    return make_spec(
        verb,
        Options(**options),
        name="lab",
        playbooks=Path("/tree/playbooks"),
        inventory=Path("/inv/lab"),
        roles=ROLES,
        inventory_text="inventories/my lab",
    )


@pytest.mark.parametrize(
    ("verb", "options", "middle", "playbook"),
    [
        (Verb.PREFLIGHT, {}, [], "preflight.yml"),
        (Verb.APPLY, {}, [], "site.yml"),
        (Verb.PLAN, {}, ["--check", "--diff"], "site.yml"),
        (Verb.APPLY, {"check": True}, ["--check"], "site.yml"),
        (Verb.APPLY, {"diff": True}, ["--diff"], "site.yml"),
        (Verb.APPLY, {"only": ("host",)}, ["--tags", "host"], "site.yml"),
        (Verb.APPLY, {"only": ("host_base", "net", "net")}, ["--tags", "host_base,net"], "site.yml"),
        (Verb.APPLY, {"tags": ("a", "b"), "skip_tags": ("c",)}, ["--tags", "a,b", "--skip-tags", "c"], "site.yml"),
        (Verb.APPLY, {"limit": "box*"}, ["--limit", "box*"], "site.yml"),
        (Verb.APPLY, {"verbosity": 3}, ["-vvv"], "site.yml"),
        (Verb.APPLY, {"ask_become_pass": True}, ["--ask-become-pass"], "site.yml"),
        (Verb.VERIFY, {}, [], "verify.yml"),
        (Verb.VERIFY, {"clean": True}, ["-e", "kosmos_verify_phase=clean"], "verify.yml"),
        (Verb.RESET, {"confirm": "lab"}, ["-e", "kosmos_reset_confirm=lab"], "reset.yml"),
    ],
)
def test_argv(verb: Verb, options: dict[str, Any], middle: list[str], playbook: str) -> None:
    assert made(verb, **options).argv() == [*HEAD, *middle, f"/tree/playbooks/{playbook}"]


def test_all_options_together() -> None:
    spec = made(only=("host",), skip_tags=("x",), limit="box", check=True, diff=True, verbosity=2, ask_become_pass=True)
    assert spec.argv()[3:-1] == [
        "--limit", "box", "--tags", "host", "--skip-tags", "x", "--check", "--diff", "-vv", "--ask-become-pass",
    ]  # fmt: skip


def test_listing_tasks_asks_for_no_password_and_keeps_the_selection() -> None:
    spec = made(only=("net",), verbosity=4, ask_become_pass=True)
    assert spec.list_tasks_argv() == [*HEAD, "--tags", "net", "--list-tasks", "/tree/playbooks/site.yml"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [("host_bse", "Did you mean 'host_base'?"), ("nett", "Did you mean 'net'?"), ("xyzzy", "")],
)
def test_unknown_only_names_what_there_is(value: str, hint: str) -> None:
    with pytest.raises(KosmosError) as caught:
        made(only=(value,))
    error = caught.value
    assert (error.exit_code, error.why) == (ExitCode.USAGE, hint)
    assert value in error.what
    assert "host_hardening" in error.cure
    assert "Layers: cluster, host, net." in error.cure


def test_only_and_tags_exclude_each_other() -> None:
    with pytest.raises(KosmosError, match="cannot be given together") as caught:
        made(only=("host",), tags=("host",))
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(("confirm", "words"), [("", "--confirm is missing"), ("prod", "--confirm says 'prod'")])
def test_reset_needs_the_name(confirm: str, words: str) -> None:
    with pytest.raises(KosmosError) as caught:
        made(Verb.RESET, confirm=confirm)
    assert caught.value.exit_code is ExitCode.USAGE
    assert words in caught.value.what
    assert caught.value.cure.endswith("kosmos-install reset --confirm lab")


@pytest.mark.parametrize(
    ("verb", "options", "asked", "command"),
    [
        (Verb.APPLY, {}, None, "kosmos-install apply -i 'inventories/my lab'"),
        (Verb.APPLY, {"only": ("host", "net"), "limit": "b x", "check": True}, None,
         "kosmos-install apply -i 'inventories/my lab' --only host --only net --limit 'b x' --check"),
        (Verb.APPLY, {"tags": ("a", "b"), "diff": True, "ask_become_pass": True}, None,
         "kosmos-install apply -i 'inventories/my lab' --tags a,b --diff --ask-become-pass"),
        (Verb.PLAN, {"only": ("host",), "diff": True}, Verb.APPLY,
         "kosmos-install apply -i 'inventories/my lab' --only host"),
        (Verb.VERIFY, {"clean": True}, None, "kosmos-install verify -i 'inventories/my lab' --clean"),
        (Verb.RESET, {"confirm": "lab"}, None, "kosmos-install reset -i 'inventories/my lab' --confirm lab"),
    ],
)  # fmt: skip
def test_command_is_what_the_operator_would_type(
    verb: Verb, options: dict[str, Any], asked: Verb | None, command: str
) -> None:
    assert made(verb, **options).command(asked, changing=asked is not None) == command


def test_record_of_a_spec_is_complete() -> None:
    data = made(only=("host",)).data()
    assert data["argv"] == made(only=("host",)).argv()
    assert data["command"].startswith("kosmos-install apply")
    assert (data["playbook"], data["inventory"]) == ("/tree/playbooks/site.yml", "/inv/lab")


def test_roles_are_folders_with_tasks(tmp_path: Path) -> None:
    for name in ("net_zones/tasks/main.yml", "host_base/tasks/main.yml", "empty/defaults/main.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    roles = RoleMap.of(tmp_path)
    assert roles.roles == ("host_base", "net_zones")
    assert roles.layers == ("host", "net")


def test_layer_of_a_collection_role() -> None:
    assert layer_of("kosmos.appliance.host_base") == "host"
