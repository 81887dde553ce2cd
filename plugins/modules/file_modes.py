#!/usr/bin/python
# Apache-2.0 (see LICENSE)
# ruff: noqa: E402 - documentation first, as ansible-doc wants it
"""Take permissions away from files that somebody else wrote, and give them back on reset."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_modes
short_description: Limit the permissions of files that somebody else wrote
description:
  - Removes every permission bit beyond O(rules[].mode_max), and sets owner and group where a rule names them. It never
    adds a bit and never makes a file, so it cannot widen an access.
  - What a path had before is remembered under O(name), so that O(state=absent) can give it back.
  - Links are not followed. A path that does not exist is no fault.
version_added: 0.1.0
author: KOSMOS maintainers
options:
  name:
    description: The memory's name, normally the role's.
    type: str
    required: true
  rules:
    description: The rules, applied in order.
    type: list
    elements: dict
    required: true
    suboptions:
      paths: {type: list, elements: str, required: true, description: Absolute paths or globs.}
      mode_max: {type: str, required: true, description: "Octal, quoted: the bits that may remain."}
      owner: {type: str, description: User name; unchanged without it.}
      group: {type: str, description: "Group name; unchanged without it, or when the host has no such group."}
  state:
    description: C(absent) restores what was remembered.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: The folder that stands for C(/). For tests.
    type: path
    default: /
attributes:
  check_mode:
    description: Compares only.
    support: full
  diff_mode:
    description: Old and new permissions of every path that differs.
    support: full
  idempotent:
    description: Changes nothing when every path is within its rule.
    support: full
"""

EXAMPLES = r"""
- name: Take permissions away
  kosmos.appliance.file_modes:
    name: host_hardening
    rules:
      - {paths: [/etc/cron.d, /etc/cron.daily], mode_max: "0700", owner: root, group: root}
      - {paths: [/etc/ssh/ssh_host_*_key], mode_max: "0600"}
"""

RETURN = r"""
paths:
  description: Paths whose permissions were (or would be) changed.
  returned: always
  type: list
  elements: str
"""

import grp
import json
import os
import pwd
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, write_synced

MEMORY = "var/lib/kosmos/file_modes"


@dataclass(frozen=True)
class Access:
    """Permission bits, user number, group number."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.uid}:{self.gid}"


def look(path: Path) -> Access | None:
    """Return what a path has, None for a link and for what is not there."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISLNK(status.st_mode) else Access(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def number(lookup, name: str | None, current: int, field: str) -> int:
    """Return the number of a user or group; the present one where none is wanted or the host knows no such name."""
    if name is None:
        return current
    try:
        return int(getattr(lookup(name), field))
    except KeyError:
        return current


def wanted(root: Path, rules: list[dict]) -> dict[str, tuple[Access, Access]]:
    """Return (before, after) by path that a rule meets. A later rule starts from the earlier's result."""
    plan: dict[str, tuple[Access, Access]] = {}
    for rule in rules:
        limit = int(rule["mode_max"], 8)
        for pattern in rule["paths"]:
            for path in sorted(root.glob(pattern.lstrip("/"))):
                before = look(path)
                if before is None:
                    continue
                shown = "/" + str(path.relative_to(root))
                now = plan[shown][1] if shown in plan else before
                uid = number(pwd.getpwnam, rule.get("owner"), now.uid, "pw_uid")
                gid = number(grp.getgrnam, rule.get("group"), now.gid, "gr_gid")
                plan[shown] = (before, Access(now.mode & limit, uid, gid))
    return plan


def restored(root: Path, memory: dict[str, dict]) -> dict[str, tuple[Access, Access]]:
    """Return (before, after) by path, for every remembered path that still exists."""
    found = {path: (look(root / path.lstrip("/")), Access(**old)) for path, old in memory.items()}
    return {path: (now, old) for path, (now, old) in found.items() if now is not None}


def put(path: Path, access: Access) -> None:
    """Set owner and mode. The owner first, because a change of owner clears the set-user-id bits."""
    os.chown(path, access.uid, access.gid, follow_symlinks=False)
    path.chmod(access.mode)


def remember(file: Path, memory: dict[str, dict]) -> None:
    """Keep the memory on disk before anything is changed."""
    make_folders(file.parent)
    write_synced(file, json.dumps(memory, indent=1, sort_keys=True), 0o600)


def main() -> None:
    """Run the module."""
    rule = {
        "paths": {"type": "list", "elements": "str", "required": True},
        "mode_max": {"type": "str", "required": True},
        "owner": {"type": "str"},
        "group": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "rules": {"type": "list", "elements": "dict", "required": True, "options": rule},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    file = root / MEMORY / f"{module.params['name']}.json"
    memory = json.loads(file.read_text()) if file.exists() else {}
    present = module.params["state"] == "present"
    plan = wanted(root, module.params["rules"]) if present else restored(root, memory)
    changes = {path: pair for path, pair in plan.items() if pair[0] != pair[1]}
    if not module.check_mode:
        if present and changes:
            remember(file, {path: asdict(before) for path, (before, _) in changes.items()} | memory)
        for path, (_, after) in changes.items():
            put(root / path.lstrip("/"), after)
        if not present:
            file.unlink(missing_ok=True)
    module.exit_json(
        changed=bool(changes),
        paths=sorted(changes),
        diff={
            "before": "".join(f"{path} {before}\n" for path, (before, _) in sorted(changes.items())),
            "after": "".join(f"{path} {after}\n" for path, (_, after) in sorted(changes.items())),
        },
    )


if __name__ == "__main__":
    main()
