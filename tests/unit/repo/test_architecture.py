"""The arrows of docs/explanation/architecture.md: who may import whom. And how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from repo import ROOT, load, tracked

LONGEST_MODULE = 400
PRODUCT = ("kosmos_installer", "kosmos_trust", "kosmos_aegis", "plugins")
MODULES = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in PRODUCT]


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, relative ones with the package in front."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])])


def users(package: str, below: str) -> list[str]:
    """Return the modules below a folder that import `package`."""
    found = []
    for path in MODULES:
        if path.parts[0] == below and any(name == package or name.startswith(f"{package}.") for name in imported(path)):
            found.append(path.as_posix())
    return found


def test_only_the_runner_starts_ansible() -> None:
    assert users("ansible_runner", "kosmos_installer") == ["kosmos_installer/runner.py"]


def test_only_views_draw() -> None:
    drawing = users("rich", "kosmos_installer")
    assert drawing, "something has to draw"
    assert all(Path(name).name.startswith("view") for name in drawing), drawing


@pytest.mark.parametrize("other", ["kosmos_installer", "kosmos_aegis", "ansible", "plugins"])
def test_trust_stands_alone(other: str) -> None:
    assert users(other, "kosmos_trust") == []


@pytest.mark.parametrize("other", ["kosmos_installer", "kosmos_aegis"])
def test_plugins_know_only_trust(other: str) -> None:
    assert users(other, "plugins") == []


def test_installer_does_not_know_the_services() -> None:
    assert users("kosmos_aegis", "kosmos_installer") == []


def test_only_the_trust_library_speaks_to_a_tpm() -> None:
    talking = [
        path.as_posix() for path in MODULES if any(name.split(".")[0] in ("tpm2_pytss",) for name in imported(path))
    ]
    assert all(name.startswith("kosmos_trust/tpm") for name in talking), talking


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_are_short_and_modern(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    body = ast.parse(text).body
    assert not body or "from __future__ import annotations" in text or all(isinstance(node, ast.Expr) for node in body)


def test_site_is_a_map() -> None:
    for name in ("site.yml", "playbooks/site.yml"):
        for play in load(ROOT / name):
            assert set(play) == {"name", "ansible.builtin.import_playbook"} or set(play) == {
                "ansible.builtin.import_playbook"
            }, play
