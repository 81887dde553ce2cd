"""What is delivered: a wheel that carries the Ansible half and works in an empty folder; locks that hold everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from repo import ROOT, tracked

COLLECTION = "kosmos_installer/_collection/ansible_collections/kosmos/appliance/"
SHIPPED = ("playbooks", "roles", "plugins", "inventories", "meta")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUPPORTED = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release does, with the build backend of the lock."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, (built.stdout + built.stderr)[-1500:]
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(installed: Path, folder: Path, *words: str) -> str:
    """Run a program of the environment in `folder` and return its standard output."""
    keep = {key: os.environ[key] for key in ("LANG", "LC_ALL") if key in os.environ}
    path = f"{installed / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        words, cwd=folder, env={**keep, "HOME": str(folder), "PATH": path}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_carries_the_ansible_half(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in tracked():
        if path.parts[0] not in SHIPPED or path.suffix == ".md":
            continue
        real = [path] if (ROOT / path).is_file() else [path / one.name for one in (ROOT / path).glob("*.py")]
        for one in real:
            assert COLLECTION + one.as_posix() in names


def test_wheel_carries_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if re.search(r"(^|/)(tests|molecule|collections|\.venv|__pycache__)/", name)]


def test_installed_command_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "kosmos-install", "version")
    assert "checkout" not in told
    assert str(installed) in told


def test_installed_checks_are_found(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(run(installed, tmp_path, "kosmos-install", "checks", "list", "--json"))
    assert listed


def test_installed_playbooks_resolve_their_roles_and_modules(installed: Path, tmp_path: Path) -> None:
    (root,) = installed.glob("lib/python*/site-packages/kosmos_installer/_collection")
    tree = root / "ansible_collections/kosmos/appliance"
    site = tree / "site.yml"
    script = (
        f"ANSIBLE_CONFIG={tree}/ansible.cfg ANSIBLE_COLLECTIONS_PATH={root} ANSIBLE_ROLES_PATH={tree}/roles "
        f"ansible-playbook --syntax-check -i {tree}/inventories/lab {site} && "
        f"ANSIBLE_COLLECTIONS_PATH={root} ansible-doc -t module kosmos.appliance.file_set"
    )
    told = run(installed, tmp_path, "sh", "-ec", script)
    assert "file_set" in told.lower()


def locked(name: str) -> dict[str, list[tuple[str, Marker | None]]]:
    """Return package -> [(version, marker)] of a lock; every entry has to carry hashes."""
    found: dict[str, list[tuple[str, Marker | None]]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        head = entry.split(" \\")[0].strip()
        if not head or head.startswith("#"):
            continue
        assert "--hash=sha256:" in entry, f"{name}: {head} has no hash"
        requirement = Requirement(head)
        (version,) = [spec.version for spec in requirement.specifier]
        found.setdefault(canonical(requirement.name), []).append((version, requirement.marker))
    return found


def canonical(name: str) -> str:
    """Return a package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]),
    ],
)
@pytest.mark.parametrize("python", SUPPORTED)
def test_lock_satisfies_the_project(lock: str, wanted: list[str], python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    have = locked(lock)
    for text in wanted:
        requirement = Requirement(text)
        versions = [
            version
            for version, marker in have.get(canonical(requirement.name), [])
            if marker is None or marker.evaluate(environment)
        ]
        assert len(versions) == 1, f"{text}: {versions} (make lock)"
        assert versions[0] in requirement.specifier, f"{text}: locked is {versions[0]} (make lock)"


def test_locks_agree() -> None:
    run_time, development = locked("requirements.lock"), locked("requirements-dev.lock")
    for name, versions in run_time.items():
        assert [version for version, _ in development[name]] == [version for version, _ in versions], name


def test_locks_name_no_index() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text


def test_supported_pythons_are_the_declared_ones() -> None:
    for version in ("3.10", *SUPPORTED, "3.14"):
        assert (version in SpecifierSet(PROJECT["requires-python"])) == (version in SUPPORTED)
