"""Ansible module `kosmos.appliance.package_set`; the logic is in module_utils/host/packages.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_set
short_description: Install all packages of the appliance in one transaction that can be taken back
description:
  - Installs what is missing with one C(apt-get install), without recommended packages.
  - Before it installs, it writes every package that is new to the host (dependencies too) into
    C(/var/lib/kosmos/packages.installed), so that V(absent) purges exactly those, also after a power cut.
  - An interrupted dpkg is finished first. Waiting for another package run is bounded.
  - A failure carries RV(reason) and RV(cure).
version_added: 0.1.0
author: KOSMOS maintainers
attributes:
  check_mode: {support: full, description: "Lists the missing packages; their dependencies are not worked out."}
  diff_mode: {support: full, description: The names that come and go.}
options:
  names:
    description: Packages that have to be installed. Names of real packages, not of virtual ones.
    type: list
    elements: str
    default: []
  displaceable:
    description: Installed packages that the transaction may remove. Any other removal is refused.
    type: list
    elements: str
    default: []
  lock_timeout_seconds: {type: int, default: 300, description: How long to wait for another package run.}
  lists_max_age_seconds: {type: int, default: 3600, description: Package lists older than this are fetched again.}
  state:
    description: V(absent) purges what the journal names and brings back what was displaced; O(names) is not read.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Install the packages
  kosmos.appliance.package_set:
    names: [chrony, auditd]
    displaceable: [systemd-timesyncd]
"""

RETURN = r"""
installed: {description: Packages that came., type: list, elements: str, returned: success}
removed: {description: Packages that went., type: list, elements: str, returned: success}
repaired:
  description: Packages that an interrupted dpkg had left half done.
  type: list
  elements: str
  returned: success
kept:
  description: Packages of ours that stay, each with the package of somebody else that needs it.
  type: dict
  returned: success
reason:
  description: >-
    Why it failed: apt_locked, mirror_unreachable, no_space, clock, unknown_package, conflict, timeout or apt.
  type: str
  returned: failure
cure: {description: What to do about the failure., type: str, returned: failure}
"""

import errno  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.apt import Apt  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.packages import PackageSet  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError  # noqa: E402

ARGUMENTS = {
    "names": {"type": "list", "elements": "str", "default": []},
    "displaceable": {"type": "list", "elements": "str", "default": []},
    "lock_timeout_seconds": {"type": "int", "default": 300},
    "lists_max_age_seconds": {"type": "int", "default": 3600},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    asked = module.params
    apt = Apt(lock_timeout_seconds=asked["lock_timeout_seconds"])
    packages = PackageSet(
        wanted=asked["names"],
        displaceable=asked["displaceable"],
        apt=apt,
        lists_max_age_seconds=asked["lists_max_age_seconds"],
        check=module.check_mode,
    )
    try:
        outcome = packages.install() if asked["state"] == "present" else packages.purge()
    except HostError as exc:
        module.fail_json(msg=f"{exc}\nCure: {exc.cure}", reason=exc.reason, cure=exc.cure, commands=apt.log)
    except OSError as exc:
        reason = "no_space" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else "file"
        cure = f"Free space on the file system of {exc.filename or '/var/lib/kosmos'}, then run again."
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}\nCure: {cure}", reason=reason, cure=cure)
    gone, come = "".join(f"{n}\n" for n in outcome.removed), "".join(f"{n}\n" for n in outcome.installed)
    diff = {"before_header": "packages", "after_header": "packages", "before": gone, "after": come}
    module.exit_json(
        changed=outcome.changed,
        installed=outcome.installed,
        removed=outcome.removed,
        repaired=outcome.repaired,
        kept=outcome.kept,
        diff=diff if outcome.changed else {},
    )


if __name__ == "__main__":
    main()
