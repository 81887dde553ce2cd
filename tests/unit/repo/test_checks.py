"""The laws of checks as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from repo import ROLES, ROOT, load

NEEDED_FIELDS = ("id", "title", "severity", "probe", "needed", "cure", "refs")
ID = re.compile(r"[a-z]+(\.[a-z0-9_]+){2,}")


def all_checks() -> list[tuple[Path, dict[str, Any]]]:
    """Return (file, check) for each check of each role."""
    files = sorted((ROOT / "roles").glob("*/checks/**/*.yml"))
    return [(path, check) for path in files for check in load(path)]


CHECKS = all_checks()


@pytest.mark.parametrize(("path", "check"), CHECKS, ids=[str(check.get("id")) for _, check in CHECKS])
def test_check_is_complete(path: Path, check: dict[str, Any]) -> None:
    assert not [field for field in NEEDED_FIELDS if field not in check], path
    assert ID.fullmatch(check["id"])
    assert check["id"].split(".")[0] == path.parts[-3].split("_")[0], "an id begins with the layer of its role"
    assert check["severity"] in ("low", "medium", "high", "critical")
    assert check.get("phase", "verify") in ("preflight", "verify", "clean")
    assert isinstance(check["probe"], dict), "a probe is a mapping"
    assert check["probe"].get("kind"), "a probe has a kind"
    assert len(check["title"]) > 10, "a title says what is true of a good host"
    assert len(check["cure"]) > 10, "a cure says what to do"
    assert isinstance(check["refs"], list)
    assert "when" not in check or check.get("skip_reason"), "what may be skipped says why"


def test_ids_are_unique() -> None:
    ids = [check["id"] for _, check in CHECKS]
    assert sorted(set(ids)) == sorted(ids), {one for one in ids if ids.count(one) > 1}


@pytest.mark.parametrize("role", ROLES)
def test_role_proves_itself(role: str) -> None:
    """Every role declares checks; one that changes the host also says what is true after the reset."""
    phases = {check.get("phase", "verify") for path, check in CHECKS if path.parts[-3] == role}
    assert phases, "a role without checks proves nothing"
    if (ROOT / "roles" / role / "tasks/reset.yml").exists():
        assert {"verify", "clean"} <= phases
