"""The laws of role tests. To Molecule a missing playbook or an empty test folder is a success; not here."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from repo import ROLES, ROOT, load

MOLECULE = ROOT / "molecule"
SCENARIOS = sorted(path.parent.name for path in MOLECULE.glob("*/molecule.yml"))
SHARED: dict[str, Any] = load(ROOT / ".config/molecule/config.yml")
STEPS = [
    "destroy",
    "syntax",
    "create",
    "prepare",
    "check",
    "converge",
    "idempotence",
    "verify tests/applied",
    "verify tests/clean",
    "destroy",
]


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_scenario(role: str) -> None:
    assert role in SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_belongs_to_a_role(scenario: str) -> None:
    assert scenario in ROLES


@pytest.mark.parametrize("phase", ["applied", "clean"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_holds_tests_that_assert(scenario: str, phase: str) -> None:
    found = []
    for path in (MOLECULE / scenario / "tests" / phase).glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(node.name)
                assert any(isinstance(inner, ast.Assert) for inner in ast.walk(node)), (
                    f"{path}: {node.name} asserts nothing"
                )
    assert found, f"molecule/{scenario}/tests/{phase} holds no test"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_playbooks_and_steps_are_there(scenario: str) -> None:
    own = load(MOLECULE / scenario / "molecule.yml") or {}
    playbooks = own.get("provisioner", {}).get("playbooks", {})
    for name in playbooks.values():
        assert (MOLECULE / scenario / name).is_file(), name
    steps = own.get("scenario", {}).get("test_sequence", SHARED["scenario"]["test_sequence"])
    for step in steps:
        if step.startswith("side_effect "):
            assert (MOLECULE / scenario / step.split()[1]).is_file(), step
    assert [step for step in steps if step in STEPS] == STEPS
    if (ROOT / "roles" / scenario / "tasks/reset.yml").exists():
        applied, clean = steps.index("verify tests/applied"), steps.index("verify tests/clean")
        assert "side_effect ../_shared/prove.yml" in steps[:applied], "check mode has to find nothing after converge"
        assert "side_effect" in steps[applied:clean], "the reset runs between the two folders of tests"


def test_shared_playbooks_are_there() -> None:
    for path in SHARED["provisioner"]["playbooks"].values():
        assert (ROOT / path.removeprefix("${MOLECULE_PROJECT_DIRECTORY}/")).is_file(), path
