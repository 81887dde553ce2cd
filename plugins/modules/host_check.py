#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Evaluate a batch of checks on the host, in one process."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.engine import evaluate
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Host

DOCUMENTATION = r"""
module: host_check
short_description: Evaluate checks that are written as data
description:
  - Reads the check files of a role on the controller, renders their values with the role's variables, and evaluates
    all of them on the host in one process.
  - Reads only. A check that cannot be evaluated is a failed check with the reason as evidence, never an error.
  - The result C(results) is a list of (id, title, severity, role, phase, found, needed, pass, waived, skipped, reason,
    evidence, cure, refs); C(summary) counts them.
  - Also sets the fact C(kosmos_check_results), a dictionary of (results, summary) by role, growing from role to role.
version_added: "0.1.0"
author: KOSMOS maintainers
options:
  path:
    description: Folder with the check files (C(*.yml)), normally C({{ role_path }}/checks).
    type: path
  phase:
    description: Evaluate the checks of this phase only.
    type: str
    choices: [preflight, verify, clean]
    default: verify
  waivers:
    description:
      - Accepted findings, each a mapping of C(id), C(reason) and C(expires) (YYYY-MM-DD).
      - An expired waiver no longer covers its finding. A waiver for a check that does not exist is an error.
    type: list
    elements: dict
    default: []
  enforce:
    description: Fails once, with every finding and its cure, when a check failed.
    type: bool
    default: true
  conclude:
    description:
      - Instead of I(path), the fact C(kosmos_check_results). Fails once with the findings of all roles, and when there
        are no results at all. Runs on the controller only.
    type: dict
  root:
    description: The folder that stands for C(/). For tests.
    type: path
    default: /
  batch:
    description: The rendered checks; filled in by the controller's half of this module.
    type: list
    elements: dict
    default: []
  reference_time:
    description: The controller's clock in seconds since the epoch; filled in by the controller's half of this module.
    type: float
attributes:
  check_mode:
    description: Works as in a real run, because it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    description: Never changes the host.
    support: full
"""

EXAMPLES = r"""
- name: Check what this role guarantees
  kosmos.appliance.host_check:
    path: "{{ role_path }}/checks"
    phase: verify
    waivers: "{{ host_base_waivers }}"
    enforce: true
"""

RETURN = r"""
results:
  description: One entry per check of the phase, in the order of the files; only the failed ones when I(enforce) failed.
  returned: always
  type: list
  elements: dict
summary:
  description: Numbers of checks - total, passed, failed, waived, skipped.
  returned: always
  type: dict
"""

ARGUMENTS = {
    "path": {"type": "path"},
    "phase": {"type": "str", "choices": ["preflight", "verify", "clean"], "default": "verify"},
    "waivers": {"type": "list", "elements": "dict", "default": []},
    "enforce": {"type": "bool", "default": True},
    "conclude": {"type": "dict"},
    "root": {"type": "path", "default": "/"},
    "batch": {"type": "list", "elements": "dict", "default": []},
    "reference_time": {"type": "float"},
}


def main() -> None:
    """Evaluate the batch and answer with one result per check."""
    # no_log: the host's journal is not the place for a whole batch; what was found goes back to the controller.
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, no_log=True)
    host = Host(root=Path(module.params["root"]), now=time.time, reference_time=module.params["reference_time"])
    module.exit_json(changed=False, results=evaluate(module.params["batch"], host))


if __name__ == "__main__":
    main()
