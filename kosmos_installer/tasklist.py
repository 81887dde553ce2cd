"""How many tasks each role will run: Ansible's own `--list-tasks`, asked while the run itself starts.

It is the same parser as the run's, so tags and imports are right; it touches no host and takes about a second.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kosmos_installer.plan import RunSpec

_SECONDS = 60
# `      host_base : Write the time configuration<TAB>TAGS: [host, host_base]`
_TASK = re.compile(r"^ {6}(?P<name>.+?)\tTAGS: \[.*\]$", re.MULTILINE)


def totals(spec: RunSpec, environment: Mapping[str, str], cwd: Path) -> list[tuple[str, int]]:
    """(role, number of tasks), roles in the order in which they run. Raises OSError, SubprocessError."""
    done = subprocess.run(
        spec.list_tasks_argv(),
        env={**environment, "ANSIBLE_NOCOLOR": "True"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return count(done.stdout)


def count(listing: str) -> list[tuple[str, int]]:
    """The totals in the text that `ansible-playbook --list-tasks` prints. Tasks outside of roles are not counted."""
    table: dict[str, int] = {}
    for match in _TASK.finditer(listing):
        role, colon, _ = match["name"].partition(" : ")
        if colon:
            role = role.rpartition(".")[2]
            table[role] = table.get(role, 0) + 1
    return list(table.items())
