"""Ansible module `kosmos.appliance.host_identity`; the logic is in module_utils/host/identity.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_identity
short_description: Give the host its name, its own line in /etc/hosts, its time zone and its locale
description:
  - What stood there is recorded once in C(/var/lib/kosmos/host_base/identity.json); V(absent) brings it back.
version_added: 0.1.0
author: KOSMOS maintainers
attributes:
  check_mode: {support: full, description: Compares only.}
  diff_mode: {support: full, description: One line for each of the four facts.}
options:
  hostname: {type: str, description: Short host name. Needed unless O(state=absent).}
  domain: {type: str, default: "", description: DNS domain; may be empty.}
  timezone: {type: str, default: Etc/UTC, description: Name below /usr/share/zoneinfo.}
  locale: {type: str, default: C.UTF-8, description: System locale (LANG).}
  kernel: {type: bool, default: true, description: Also set the kernel's host name. False in a container.}
  state: {type: str, choices: [present, absent], default: present, description: V(absent) restores what was found.}
"""

EXAMPLES = r"""
- name: Name the host
  kosmos.appliance.host_identity: {hostname: kosmos, domain: example.internal, timezone: Europe/Berlin}
"""

RETURN = r"""
changes:
  description: Fact -> what was found and what is declared.
  type: dict
  returned: success
"""

import socket  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.identity import (  # noqa: E402
    IdentityFiles,
    declared,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError  # noqa: E402

ARGUMENTS = {
    "hostname": {"type": "str"},
    "domain": {"type": "str", "default": ""},
    "timezone": {"type": "str", "default": "Etc/UTC"},
    "locale": {"type": "str", "default": "C.UTF-8"},
    "kernel": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_if=[("state", "present", ("hostname",))])
    asked = module.params
    files = IdentityFiles()
    if asked["kernel"]:
        files.set_kernel_name, files.kernel_name = socket.sethostname, socket.gethostname
    absent = asked["state"] == "absent"
    try:
        if absent:
            wanted = files.original()
        else:
            wanted = declared(asked["hostname"], asked["domain"], asked["timezone"], asked["locale"])
        changes = files.differs(wanted) if wanted else {}
        if wanted and not module.check_mode:
            files.apply(wanted, restoring=absent)
            if absent:
                files.forget()
    except HostError as exc:
        module.fail_json(msg=f"{exc}\nCure: {exc.cure}", reason=exc.reason, cure=exc.cure)
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}")
    diff = {
        "before": "".join(f"{key}: {before}\n" for key, (before, _) in changes.items()),
        "after": "".join(f"{key}: {after}\n" for key, (_, after) in changes.items()),
    }
    module.exit_json(
        changed=bool(changes) or (absent and wanted is not None),
        changes={key: {"found": before, "declared": after} for key, (before, after) in changes.items()},
        diff=diff if changes else {},
    )


if __name__ == "__main__":
    main()
