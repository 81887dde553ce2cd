"""Ansible module `kosmos.appliance.file_modes`; the logic is in module_utils/host/filemodes.py."""

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

from pathlib import Path  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.filemodes import FileModes  # noqa: E402

RULE = {
    "paths": {"type": "list", "elements": "str", "required": True},
    "mode_max": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}
ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "rules": {"type": "list", "elements": "dict", "required": True, "options": RULE},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "root": {"type": "path", "default": "/"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    modes = FileModes(module.params["name"], Path(module.params["root"]))
    absent = module.params["state"] == "absent"
    try:
        changes = modes.forget() if absent else modes.declare(module.params["rules"])
        if not module.check_mode:
            modes.apply(changes, restoring=absent)
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}")
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
