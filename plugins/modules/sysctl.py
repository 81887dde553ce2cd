"""Ansible module `kosmos.appliance.sysctl`; the logic is in module_utils/host/sysctl.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl
short_description: Keep kernel parameters in one file and in the running kernel
description:
  - Writes one file below C(/etc/sysctl.d) that holds exactly O(settings), and brings the running kernel to the same
    values.
  - A key may hold C(*) for one part of the name (C(net.ipv4.conf.*.send_redirects)). systemd-sysctl expands it at boot,
    and udev for every interface that appears later; this module expands it over the interfaces of now.
  - The value that each key had before is remembered, so that O(state=absent) can put it back. The kernel keeps some
    keys one-way until the next boot; those are returned as RV(until_reboot).
  - A key that this kernel does not have is skipped and returned as RV(unknown).
version_added: 0.1.0
author: KOSMOS maintainers
options:
  path:
    description: The file. Its name decides the order among the files of sysctl.d.
    type: path
    required: true
  settings:
    description: Values by dotted key.
    type: dict
    required: true
  live:
    description: Bring the running kernel to the same values. False where it belongs to somebody else (a container).
    type: bool
    default: true
  state:
    description: C(absent) removes the file and restores the remembered values.
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
    description: Old and new value of every key that differs, and the file.
    support: full
  idempotent:
    description: Changes nothing when file and kernel agree with the settings.
    support: full
"""

EXAMPLES = r"""
- name: Keep the kernel's hardening parameters
  kosmos.appliance.sysctl:
    path: /etc/sysctl.d/99-zz-kosmos-hardening.conf
    settings: {kernel.dmesg_restrict: 1, "net.ipv4.conf.*.accept_redirects": 0}
"""

RETURN = r"""
keys:
  description: Keys whose value in the running kernel was (or would be) changed.
  returned: always
  type: list
  elements: str
unknown:
  description: Keys that this kernel does not have.
  returned: always
  type: list
  elements: str
until_reboot:
  description: Keys whose old value the kernel takes back only at the next boot (state absent).
  returned: always
  type: list
  elements: str
"""

from pathlib import Path  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.sysctl import KernelSettings, dotted  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError  # noqa: E402

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "settings": {"type": "dict", "required": True},
    "live": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "root": {"type": "path", "default": "/"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    asked = module.params
    kernel = KernelSettings(asked["path"], Path(asked["root"]))
    present = asked["state"] == "present"
    try:
        plan = kernel.declare(asked["settings"], live=asked["live"]) if present else kernel.forget(live=asked["live"])
        until_reboot = [] if module.check_mode else kernel.apply(plan)
    except HostError as exc:
        module.fail_json(msg=f"{exc}\nCure: {exc.cure}", reason=exc.reason, cure=exc.cure)
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}")
    keys = sorted(plan.keys.items())
    files = {"before_header": str(kernel.file), "after_header": str(kernel.file)}
    running = {"before_header": "running kernel", "after_header": "running kernel"}
    module.exit_json(
        changed=plan.before != plan.after or any(key not in until_reboot for key in plan.keys),
        keys=[dotted(key) for key, _ in keys],
        unknown=list(plan.unknown),
        until_reboot=sorted(map(dotted, until_reboot)),
        diff=[
            files | {"before": plan.before or "", "after": plan.after or ""},
            running
            | {
                "before": "".join(f"{dotted(key)} = {now}\n" for key, (now, _) in keys),
                "after": "".join(f"{dotted(key)} = {then}\n" for key, (_, then) in keys),
            },
        ],
    )


if __name__ == "__main__":
    main()
