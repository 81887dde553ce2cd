"""Evaluates the checks of a real role without a host: rendered as Ansible renders them, on a fixture root.

checks = checks_of("host_base", kosmos_variables())
result = evaluate(checks, Host(root=tmp_path, now=time.time), "host.time.service")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import engine
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Host

REPOSITORY = Path(__file__).parents[2]
Checks = dict[str, dict[str, Any]]


def _load(path: Path) -> Any:
    return DataLoader().load_from_file(str(path), trusted_as_template=True) if path.is_file() else {}


def kosmos_variables(inventory: Path = REPOSITORY / "inventories/lab") -> dict[str, Any]:
    """The appliance file of an inventory, and what the playbooks make of it for the roles."""
    variables = dict(_load(inventory / "group_vars/all/kosmos.yml"))
    for path in sorted((REPOSITORY / "playbooks/group_vars/all").glob("*.yml")):
        variables |= _load(path)
    return variables


def _main(folder: Path) -> dict[str, Any]:
    """The variables of a role's folder: main.yml, or every file below main/."""
    found: dict[str, Any] = {}
    for path in [folder / "main.yml", *sorted((folder / "main").glob("*.yml"))]:
        found |= _load(path) or {}
    return found


def checks_of(role: str, variables: Mapping[str, Any] | None = None, **overrides: Any) -> Checks:
    """The checks of a role by id, rendered; those whose `when` is false are marked as skipped."""
    folder = REPOSITORY / "roles" / role
    known = _main(folder / "defaults") | dict(variables or {}) | _main(folder / "vars")
    known |= {"role_path": str(folder)} | overrides
    templar = Templar(DataLoader(), known)
    return {
        check["id"]: _rendered(templar, check, role)
        for path in sorted((folder / "checks").glob("*.yml"))
        for check in _load(path)
    }


def _rendered(templar: Templar, check: Mapping[str, Any], role: str) -> dict[str, Any]:
    if templar.template(check.get("when", True)) is not True:
        return dict(check) | {"role": role, "skipped": True, "reason": "when"}
    return dict(templar.template({key: value for key, value in check.items() if key != "when"})) | {"role": role}


def chain(checks: Checks, name: str) -> list[dict[str, Any]]:
    """One check, after the checks that it requires."""
    links = [checks[name]]
    while required := links[0].get("requires"):
        links.insert(0, checks[required])
    return links


def evaluate(checks: Checks, host: Host, name: str) -> dict[str, Any]:
    """The result of one check, after the checks that it requires."""
    return engine.evaluate(chain(checks, name), host)[-1]
