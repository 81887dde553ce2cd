"""The laws of a role, for each role that there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repo import ROLES, ROOT, defaults, load, module, role_file, spec, tasks

LAYERS = ("host", "net", "trust", "cluster", "data", "sec", "edge", "ops")
# A role made of nothing else changes nothing on the host, so there is nothing to reset or to prove afterwards.
READING = {
    "kosmos.appliance.host_check", "ansible.builtin.assert", "ansible.builtin.debug", "ansible.builtin.import_tasks",
    "ansible.builtin.include_tasks", "ansible.builtin.meta", "ansible.builtin.set_fact", "ansible.builtin.setup",
}  # fmt: skip
LONGEST_TASK_FILE = 80
CONDITIONS = ("when", "changed_when", "failed_when", "until")
EXPRESSION = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# A variable of the playbooks. Not the collection's own filters, and no attribute of something else.
OF_PLAYBOOKS = re.compile(r"(?<![\w.])kosmos(?:_\w+|\.(?!appliance\.)\w+)")

pytestmark = pytest.mark.parametrize("role", ROLES)


def options(role: str) -> dict[str, dict[str, Any]]:
    """Return all options of all entry points; an option that appears twice has to be the same."""
    found: dict[str, dict[str, Any]] = {}
    for entry in spec(role).values():
        for name, option in entry.get("options", {}).items():
            assert found.setdefault(name, option) == option, f"{name} is declared in two ways"
    return found


def test_name_begins_with_a_layer(role: str) -> None:
    assert role.split("_", maxsplit=1)[0] in LAYERS


def test_entry_points_are_declared_and_there(role: str) -> None:
    needed = {"main"}
    if {module(task) for _, task in tasks(role)} - {None} - READING:
        needed |= {"verify", "reset"}
    assert needed <= set(spec(role))
    for entry in spec(role):
        assert role_file(role, f"tasks/{entry}.yml").exists(), entry
        assert spec(role)[entry].get("short_description"), entry


def test_defaults_are_what_the_specification_says(role: str) -> None:
    declared, given = options(role), defaults(role)
    assert set(given) <= set(declared), "a default without a declaration"
    for name, option in declared.items():
        if option.get("required"):
            assert not given.get(name), f"{name} is required and has a default"
        elif name in spec(role)["main"].get("options", {}) and "default" in option:
            assert name in given, f"{name} is missing in defaults/main.yml"
        if name in given and "default" in option:
            assert given[name] == option["default"], name


def test_options_are_described_and_typed(role: str) -> None:
    for name, option in options(role).items():
        assert option.get("description"), name
        assert option.get("type"), name
        assert option["type"] != "list" or option.get("elements"), f"{name}: list of what?"


def test_public_variables_carry_the_name_of_the_role(role: str) -> None:
    for name in {*options(role), *defaults(role)}:
        assert name.startswith(f"{role}_"), name


def test_private_variables_carry_the_name_of_the_role(role: str) -> None:
    private = role_file(role, "vars/main.yml")
    names = set(load(private) or {}) if private.exists() else set()
    names |= {task["register"] for _, task in tasks(role) if "register" in task}
    for name in names:
        assert name.startswith(f"__{role}_"), name


def test_main_is_a_table_of_contents(role: str) -> None:
    for task in load(role_file(role, "tasks/main.yml")):
        name = module(task)
        settles = name == "kosmos.appliance.file_set" and task[name].get("state") == "settled"
        flushes = name == "ansible.builtin.meta" and task[name] == "flush_handlers"
        assert name == "ansible.builtin.import_tasks" or flushes or settles, task


def test_nothing_is_ignored_or_hidden(role: str) -> None:
    for name, task in tasks(role) + tasks(role, "handlers"):
        hidden = {"ignore_errors", "no_log", "tags"} & set(task)
        assert not hidden, f"{name}: {task.get('name')} uses {hidden}"
        # To try whether a host can still be reached is fair, when the answer is looked at.
        assert "ignore_unreachable" not in task or "register" in task, f"{name}: {task.get('name')}"


def test_only_builtin_and_own_modules(role: str) -> None:
    for name, task in tasks(role) + tasks(role, "handlers"):
        used = module(task)
        assert used is None or used.startswith(("ansible.builtin.", "kosmos.appliance.")), f"{name}: {used}"


def test_handlers_listen_to_the_role(role: str) -> None:
    for name, task in tasks(role, "handlers"):
        topics = task["listen"] if isinstance(task["listen"], list) else [task["listen"]]
        assert all(topic.startswith(f"{role} ") for topic in topics), f"{name}: {topics}"


def test_notified_topics_exist(role: str) -> None:
    heard: set[str] = set()
    for _, task in tasks(role, "handlers"):
        heard |= {task["listen"]} if isinstance(task["listen"], str) else set(task["listen"])
    for name, task in tasks(role):
        topics = task.get("notify", [])
        for topic in [topics] if isinstance(topics, str) else topics:
            assert "{{" in topic or topic in heard, f"{name}: nobody hears {topic}"


def test_task_files_are_short(role: str) -> None:
    for path in role_file(role, "tasks").rglob("*.yml"):
        assert len(path.read_text().splitlines()) <= LONGEST_TASK_FILE, path


def test_readme_table_is_fresh(role: str) -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools/role_readme.py", "--check", role], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_role_stands_in_a_playbook(role: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "playbooks").glob("*.yml"))
    assert f"role: {role}," in text or f"role: {role}\n" in text or f"name: {role}," in text


def test_other_roles_variables_are_not_read(role: str) -> None:
    others = [other for other in ROLES if other != role]
    for path in role_file(role, ".").rglob("*"):
        if not path.is_file() or path.suffix == ".md" or path.parent.name == "files":
            continue
        for other in others:
            for line in path.read_text(errors="replace").splitlines():
                used = [
                    word for word in line.replace("{", " ").split() if word.startswith((f"{other}_", f"__{other}_"))
                ]
                assert line.lstrip().startswith("#") or not used, f"{path.relative_to(ROOT)}: {used}"


def expressions(role: str) -> Iterator[tuple[Path, str]]:
    """Yield (file, expression) for all Jinja of a role, text in quotes left out."""
    for path in role_file(role, ".").rglob("*"):
        if path.is_file() and path.suffix != ".md" and "files" not in path.parts:
            for found in EXPRESSION.finditer(path.read_text()):
                yield path, QUOTED.sub("", found[0])
    for folder in ("tasks", "handlers"):
        for name, task in tasks(role, folder):
            for key in CONDITIONS:
                yield role_file(role, f"{folder}/{name}"), QUOTED.sub("", str(task.get(key, "")))


def test_variables_of_the_playbooks_are_not_read(role: str) -> None:
    """A playbook hands values over; a role that reads them itself works in this product's playbooks only."""
    for path, expression in expressions(role):
        assert not OF_PLAYBOOKS.findall(expression), f"{path.relative_to(ROOT)}: {expression}"


def test_waivers_are_handed_over(role: str) -> None:
    mapping = "".join(path.read_text() for path in (ROOT / "playbooks/group_vars/all").glob("*.yml"))
    assert options(role)[f"{role}_waivers"]["default"] == []
    assert f'\n{role}_waivers: "{{{{ kosmos_waivers }}}}"\n' in mapping
