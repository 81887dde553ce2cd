"""Ansible module `kosmos.appliance.live_state`; the logic is in module_utils/host/livestate.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: live_state
short_description: Bring kernel modules, AppArmor profiles and units into the declared state in one run
description:
  - Mends what drifted since boot although the files are right, such as a stopped service.
  - Writes no configuration file; what has to survive a reboot is the business of M(kosmos.appliance.file_set). Kernel
    settings are that of M(kosmos.appliance.sysctl).
version_added: 0.1.0
author: KOSMOS maintainers
attributes:
  check_mode: {support: full, description: "Compares only; a unit that is not installed yet counts as a change."}
  diff_mode: {support: full, description: One line for each difference.}
options:
  units:
    description: systemd units. Left out or null properties are not touched.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {type: str, required: true, description: Full name of the unit.}
      enabled: {type: bool, description: Starts at boot.}
      active: {type: bool, description: Runs now.}
  modules: {type: list, elements: str, default: [], description: Kernel modules that have to be loaded or built in.}
  profiles:
    description: AppArmor profiles.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {type: str, required: true, description: Name of the profile.}
      path: {type: path, required: true, description: The file that defines it.}
      state: {type: str, choices: [loaded, absent], default: loaded, description: Enforced now or not loaded.}
"""

EXAMPLES = r"""
- name: Keep the services running
  kosmos.appliance.live_state:
    units: [{name: chrony.service, enabled: true, active: true}]
    modules: [overlay]
"""

RETURN = r"""
mended:
  description: What was not as declared.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.livestate import LiveState  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError  # noqa: E402

UNIT = {"name": {"type": "str", "required": True}, "enabled": {"type": "bool"}, "active": {"type": "bool"}}
PROFILE = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["loaded", "absent"], "default": "loaded"},
}
ARGUMENTS = {
    "units": {"type": "list", "elements": "dict", "default": [], "options": UNIT},
    "modules": {"type": "list", "elements": "str", "default": []},
    "profiles": {"type": "list", "elements": "dict", "default": [], "options": PROFILE},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    asked = module.params
    live = LiveState(
        units=asked["units"],
        modules=asked["modules"],
        profiles=asked["profiles"],
        release=os.uname().release,
    )
    try:
        steps = live.differences()
        if not module.check_mode:
            live.apply(steps)
    except HostError as exc:
        module.fail_json(msg=f"{exc}\nCure: {exc.cure}", reason=exc.reason, cure=exc.cure)
    lines = [f"{step.what}: {step.before} -> {step.after}" for step in steps]
    diff = {
        "before": "".join(f"{step.what}: {step.before}\n" for step in steps),
        "after": "".join(f"{step.what}: {step.after}\n" for step in steps),
    }
    module.exit_json(changed=bool(steps), mended=lines, diff=diff if steps else {})


if __name__ == "__main__":
    main()
