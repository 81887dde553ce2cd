"""Faults of check files carry file, id, what and cure; every check in the repository has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import definition, reference
from check_bed import REPOSITORY, checks_of, kosmos_variables

GOOD: dict[str, Any] = {
    "id": "host.a.b",
    "title": "t",
    "severity": "low",
    "probe": {"kind": "file", "path": "/x"},
    "needed": True,
    "cure": "c",
    "refs": [],
}
ROLES = sorted(path.parent.parent.name for path in REPOSITORY.glob("roles/*/checks/*.yml"))


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ("text", "is str, not a mapping"),
        ({key: value for key, value in GOOD.items() if key != "cure"}, "lacks `cure`"),
        (GOOD | {"sevrity": 1}, "unknown key `sevrity`"),
        (GOOD | {"id": "Host.a"}, "the id is not layer.area.what"),
        (GOOD | {"severity": "urgent"}, "severity is 'urgent'"),
        (GOOD | {"phase": "later"}, "phase is 'later'"),
    ],
)
def test_each_fault_of_shape_is_named(check: Any, what: str) -> None:
    faults = [str(fault) for fault in definition.faults_of_shape("f.yml", check)]
    assert any(what in fault and fault.startswith("f.yml: check ") and "Cure: " in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"probe": "file"}, "not a mapping with `kind`"),
        ({"probe": {"kind": "fil"}}, "no probe kind 'fil'"),
        ({"probe": {"kind": "file"}}, "lacks the argument `path`"),
        ({"probe": {"kind": "file", "path": "/x", "atribute": "mode"}}, "unknown argument `atribute`"),
        ({"probe": {"kind": "file", "path": "/x", "attribute": "colour"}}, "`attribute` is 'colour'"),
        ({"probe": {"kind": "file", "path": 5}}, "`path` is 5"),
        ({"probe": {"kind": "port", "port": True}}, "`port` is True"),
        ({"probe": {"kind": "command", "argv": "ls -l"}}, "`argv` is 'ls -l'"),
        ({"needed": {"equal": 1}}, "unknown operator equal"),
    ],
)
def test_each_fault_of_a_value_is_named(change: dict[str, Any], what: str) -> None:
    faults = [str(fault) for fault in definition.faults_of_values("f.yml", GOOD | change)]
    assert any(what in fault and "check host.a.b" in fault for fault in faults), faults


def test_order_between_checks() -> None:
    first, second = GOOD, GOOD | {"id": "host.a.c", "requires": "host.a.b"}
    assert definition.faults_of_order([("f", first), ("f", second)]) == []
    assert "not before it" in str(definition.faults_of_order([("f", second), ("f", first)])[0])
    assert "not before it" in str(definition.faults_of_order([("f", first | {"phase": "clean"}), ("f", second)])[0])
    assert "used twice" in str(definition.faults_of_order([("f", first), ("f", first)])[0])


@pytest.mark.parametrize("role", sorted(set(ROLES)))
def test_every_check_of_the_repository_is_without_fault(role: str) -> None:
    checks = checks_of(role, kosmos_variables())
    plain = {"role", "skipped", "reason"}
    bare = [(role, {key: value for key, value in check.items() if key not in plain}) for check in checks.values()]
    faults = [fault for file, check in bare for fault in definition.faults_of_shape(file, check)]
    faults += definition.faults_of_order(bare)
    faults += [
        fault
        for check in checks.values()
        if not check.get("skipped")
        for fault in definition.faults_of_values(role, check)
    ]
    assert [str(fault) for fault in faults] == []
    assert all(check["cure"].strip() and check["title"].strip() for check in checks.values())


def test_the_reference_page_is_what_the_code_says() -> None:
    page = Path(REPOSITORY / "docs/reference/probes.md").read_text()
    assert page == reference.render(), "run: python -m ...module_utils.checks.reference > docs/reference/probes.md"
