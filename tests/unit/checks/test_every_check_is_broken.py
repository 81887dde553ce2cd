"""The law: each check of each role is proved to fail, by a fixture root or in the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from check_bed import REPOSITORY

KEYS = {"break", "undo", "prepare", "vars"}
MINIMUM = 90
CHECKS = {
    check["id"]: path.parent.parent.name
    for path in sorted(REPOSITORY.glob("roles/*/checks/*.yml"))
    for check in yaml.safe_load(path.read_text())
}
LIVE: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in REPOSITORY.glob("tests/appliance/breaks/*.yml")
}
FIXTURE_TESTS = sorted(Path(REPOSITORY / "tests/unit").rglob("test_*_breaks.py"))


def test_there_are_enough_checks() -> None:
    assert len(CHECKS) >= MINIMUM


@pytest.mark.parametrize("role", sorted(set(CHECKS.values())))
def test_every_check_of_the_role_is_broken_somewhere(role: str) -> None:
    texts = "\n".join(path.read_text() for path in FIXTURE_TESTS)
    mine = [name for name, owner in CHECKS.items() if owner == role]
    unproved = [name for name in mine if f'"{name}"' not in texts and name not in LIVE.get(role, {})]
    assert unproved == []


@pytest.mark.parametrize("role", sorted(LIVE))
def test_what_is_broken_in_the_machine_is_a_check_of_that_role(role: str) -> None:
    assert [name for name in LIVE[role] if CHECKS.get(name) != role] == []
    for name, how in LIVE[role].items():
        assert set(how) <= KEYS, name
        assert str(how["break"]).strip(), name
        assert str(how["undo"]).strip(), name
