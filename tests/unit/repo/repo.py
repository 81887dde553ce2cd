"""What the laws read: the tracked files, the roles, and YAML with the tags that Ansible knows."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
BLOCKS = ("block", "rescue", "always")
# Keys of a task that are not the module.
KEYWORDS = {
    "name", "when", "register", "changed_when", "failed_when", "check_mode", "diff", "vars", "notify", "listen", "loop",
    "loop_control", "until", "retries", "delay", "become", "become_user", "become_flags", "become_method", "become_exe",
    "environment", "delegate_to", "delegate_facts", "run_once", "async", "poll", "args", "no_log", "ignore_errors",
    "ignore_unreachable", "tags", "throttle", "timeout", "any_errors_fatal", "connection", "debugger", "collections",
    "module_defaults", "port", "remote_user", "with_items",
}  # fmt: skip


@cache
def tracked() -> tuple[Path, ...]:
    """Return every file that git knows or would add (links included, folders not), relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    paths = (Path(name) for name in listing.split("\0") if name)
    return tuple(sorted(path for path in paths if (ROOT / path).is_symlink() or (ROOT / path).is_file()))


def load(path: Path) -> Any:
    """Return the YAML of a file."""
    return yaml.safe_load(path.read_text())


def role_file(role: str, path: str) -> Path:
    """Return a file of a role."""
    return ROOT / "roles" / role / path


def spec(role: str) -> dict[str, Any]:
    """Return the entry points of a role's argument specification."""
    entries = load(role_file(role, "meta/argument_specs.yml"))["argument_specs"]
    assert isinstance(entries, dict)
    return entries


def defaults(role: str) -> dict[str, Any]:
    """Return the public variables of a role; none is an empty dictionary."""
    path = role_file(role, "defaults/main.yml")
    return (load(path) or {}) if path.exists() else {}


def tasks(role: str, folder: str = "tasks") -> list[tuple[str, dict[str, Any]]]:
    """Return (file, task) for every task of a role, those in blocks included; a block counts as a task too."""
    found: list[tuple[str, dict[str, Any]]] = []

    def walk(name: str, entries: list[dict[str, Any]]) -> None:
        for entry in entries or []:
            found.append((name, entry))
            for part in BLOCKS:
                walk(name, entry.get(part, []))

    for path in sorted(role_file(role, folder).rglob("*.yml")):
        walk(path.name, load(path))
    return found


def module(task: dict[str, Any]) -> str | None:
    """Return the module that a task runs; None for a block."""
    names = [key for key in task if key not in KEYWORDS and key not in BLOCKS]
    assert len(names) <= 1, f"more than one module in {task}"
    return names[0] if names else None
