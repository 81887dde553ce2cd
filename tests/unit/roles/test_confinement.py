"""The agent's profiles as data: the seccomp list is well formed, sufficient, and a subset of containerd's default."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/host_confinement"
CONTAINERD = ROOT.parent / "shared/data/seccomp/containerd-default-names.json"
#: Allowed by containerd under conditions on arguments or architecture, so not in its unconditional list.
CONDITIONAL = {"arch_prctl", "clone", "clone3", "personality", "socket"}


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROLE / "vars/main/seccomp.yml").read_text())
    return read


@pytest.fixture(scope="module")
def allowed(variables: dict[str, Any]) -> list[str]:
    return list(chain.from_iterable(variables["__host_confinement_syscalls"]))


@pytest.fixture(scope="module")
def profile(variables: dict[str, Any], allowed: list[str]) -> dict[str, Any]:
    read: dict[str, Any] = variables["__host_confinement_seccomp_profile"]
    return {**read, "syscalls": [{**read["syscalls"][0], "names": allowed}, *read["syscalls"][1:]]}


def test_the_profile_is_what_a_runtime_reads(profile: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "seccomp.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(profile)


def test_no_name_stands_twice(allowed: list[str]) -> None:
    assert [name for name, count in Counter(allowed).items() if count > 1] == []


def test_nothing_forbidden_is_allowed(variables: dict[str, Any], profile: dict[str, Any]) -> None:
    named = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert named & set(variables["__host_confinement_forbidden"]) == set()


def test_nobody_changes_its_user(allowed: list[str]) -> None:
    assert [name for name in allowed if name.startswith(("setuid", "setgid", "setre", "setfs", "setgroups"))] == []


def test_it_is_a_subset_of_containerds_default(profile: dict[str, Any]) -> None:
    if not CONTAINERD.is_file():
        pytest.skip(f"the list of containerd is not beside the checkout ({CONTAINERD.name})")
    default = set(json.loads(CONTAINERD.read_text())["always_allowed"]) | CONDITIONAL
    named = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert named - default == set()


def test_conditional_calls_have_their_conditions(profile: dict[str, Any], allowed: list[str]) -> None:
    rules = {name: rule for rule in profile["syscalls"][1:] for name in rule["names"]}
    assert {"clone", "clone3", "personality", "socket"} == set(rules)
    assert not set(rules) & set(allowed)
    assert rules["clone3"]["action"] == "SCMP_ACT_ERRNO"
    assert rules["clone3"]["errnoRet"] == 38
    namespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    assert rules["clone"]["args"] == [{"index": 0, "value": namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]


@pytest.mark.parametrize("abi", ["3.0", "4.0"])
def test_the_apparmor_profile_denies_no_grant_of_its_own(abi: str) -> None:
    text = render(abi)
    assert "deny /** w" not in text
    lines = [line.strip() for line in text.splitlines()]
    assert not [line for line in lines if line.startswith("capability")]
    assert not [line for line in lines if line.startswith("deny ")], "a deny without audit is silent"
    assert ("audit deny userns," in lines) is (abi == "4.0")


def test_the_apparmor_profile_compiles() -> None:
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin")
    if parser is None:
        pytest.skip("apparmor_parser is not installed here; the role's scenario compiles the profile")
    done = subprocess.run([parser, "-QTK"], input=render("3.0"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def render(abi: str) -> str:
    values = yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | {"host_confinement_apparmor_abi": abi}
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.tests["version"] = lambda have, want, _: float(have) >= float(want)
    return environment.from_string((ROLE / "templates/etc/apparmor.d/kosmos-agent.j2").read_text()).render(values)
