"""Ansible module `kosmos.appliance.file_set`; the logic is in module_utils/fileset.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Bring a whole set of files into a declared state in one module run
description:
  - Renders the templates on the controller, then compares, validates and replaces all files of the set in one process.
  - Nothing is replaced before every changed file has passed its validator and is staged on its own file system.
  - A path is reported as changed again on the next run until C(state=settled) is called for it, so a handler that a
    cut connection prevented is not lost.
version_added: 0.1.0
author: KOSMOS maintainers
attributes:
  check_mode: {support: full, description: Compares and validates only.}
  diff_mode: {support: full, description: One entry for each path.}
options:
  files:
    description: The files. Exactly one of O(files[].template), O(files[].src), O(files[].content) for a present file.
    type: list
    elements: dict
    required: true
    suboptions:
      dest: {type: path, description: "Absolute path; default: V(/) and the template's name without V(.j2)."}
      template: {type: str, description: A Jinja template below the role's C(templates/).}
      src: {type: str, description: A text file below the role's C(files/), taken as it is.}
      content: {type: str, description: The text itself.}
      state: {type: str, choices: [present, directory, absent], default: present, description: What stands at the path.}
      mode: {type: str, default: "0644", description: "Octal, quoted; directories default to V(0755)."}
      owner: {type: str, default: root, description: User name or number.}
      group: {type: str, default: root, description: Group name or number.}
      dir_mode: {type: str, default: "0755", description: Mode of the parent directories that have to be made.}
      validate: {type: str, description: "Command that accepts or refuses the new text; C(%s) is its path."}
      backup: {type: bool, default: false, description: Keep a distribution's file; restore it on reset.}
  state:
    description:
      - V(absent) undoes exactly this set; a directory goes only when it is empty.
      - V(settled) forgets that paths of this set are pending.
    type: str
    choices: [present, absent, settled]
    default: present
"""

EXAMPLES = r"""
- name: Write the time configuration
  kosmos.appliance.file_set:
    files:
      - template: etc/chrony/conf.d/kosmos.conf.j2
      - {dest: /etc/kosmos, state: directory, mode: "0750"}
  register: __host_base_time_result
  notify: host_base restart chrony
"""

RETURN = r"""
paths:
  description: Changed paths, and those of an earlier run that are still pending.
  type: list
  elements: str
  returned: always
pending:
  description: The part of RV(paths) that an earlier run had changed.
  type: list
  elements: str
  returned: always
"""

from typing import Any  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402  (documentation first: ansible-doc convention)
from ansible_collections.kosmos.appliance.plugins.module_utils.fileset import (  # noqa: E402
    Entry,
    FileSet,
    FileSetError,
)

FILE_OPTIONS = {
    "dest": {"type": "path", "required": True},
    "template": {"type": "str"},
    "src": {"type": "str"},
    "content": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "directory", "absent"], "default": "present"},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "dir_mode": {"type": "str", "default": "0755"},
    "validate": {"type": "str"},
    "backup": {"type": "bool", "default": False},
}
ARGUMENTS = {
    "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
    "state": {"type": "str", "choices": ["present", "absent", "settled"], "default": "present"},
}


def _entries(files: list[dict[str, Any]], state: str) -> list[Entry]:
    names = ("dest", "content", "mode", "owner", "group", "dir_mode", "validate", "backup")
    entries = [Entry(state=item["state"], **{name: item[name] for name in names}) for item in files]
    if state != "absent":
        return entries
    return [Entry(dest=e.dest, state="absent", backup=e.backup) for e in entries if e.state != "absent"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    state = module.params["state"]
    try:
        fileset = FileSet(_entries(module.params["files"], state), check=module.check_mode)
        if state == "settled":
            # Bookkeeping of our own: it changes nothing that anybody asked for.
            fileset.settle()
            module.exit_json(changed=False, paths=[], pending=[])
        changes, pending = fileset.compare(), fileset.pending()
        fileset.validate(changes)
        if not module.check_mode:
            fileset.apply(changes)
    except (FileSetError, ValueError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}")
    paths = [change.entry.dest for change in changes]
    module.exit_json(
        changed=bool(paths or pending),
        paths=paths + [path for path in pending if path not in paths],
        pending=pending,
        diff=[change.diff() for change in changes] if module._diff else [],
    )


if __name__ == "__main__":
    main()
