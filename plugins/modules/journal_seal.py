"""Ansible module `kosmos.appliance.journal_seal`, target half; the logic is in module_utils/host/sealing.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: journal_seal
short_description: Seal the journal so that past entries cannot be forged, and hand the verification key to the operator
description:
  - Makes the keys of systemd's forward-secure sealing once. The verification key goes into a file of mode 0600 on the
    controller and nowhere else; the host keeps only its SHA-256.
  - A key whose delivery was interrupted is replaced. Keys that somebody else set up are left alone.
  - To verify, on any machine that has a copy of the journal,
    C(journalctl --verify --verify-key="$(cat FILE)" --directory COPY).
version_added: 0.1.0
author: KOSMOS maintainers
attributes:
  check_mode: {support: full, description: Tells whether keys would be made.}
  diff_mode: {support: none, description: There is nothing to show that may be seen.}
options:
  key_dir:
    description: Folder on the controller, made with mode 0700. Needed unless O(state=absent).
    type: path
  key_name: {type: str, description: "Start of the file name; default: the inventory name of the host."}
  interval_seconds: {type: int, default: 900, description: After this time a sealed entry can no longer be altered.}
  state: {type: str, choices: [present, absent], default: present, description: V(absent) removes keys that we made.}
  step:
    description: What the target half has to do; the action plugin sets it.
    type: str
    choices: [inspect, generate, confirm, remove]
    default: inspect
  key_sha256: {type: str, description: Set by the action plugin.}
"""

EXAMPLES = r"""
- name: Seal the journal
  kosmos.appliance.journal_seal: {key_dir: ~/.local/state/kosmos/keys}
"""

RETURN = r"""
key_path: {description: Where the verification key lies on the controller., type: str, returned: when keys were made}
key_sha256: {description: SHA-256 of the verification key., type: str, returned: when known}
sealing: {description: "delivered, foreign or due.", type: str, returned: success}
"""

from typing import Any  # noqa: E402  (documentation first: ansible-doc convention)

from ansible.module_utils.basic import AnsibleModule  # noqa: E402  (documentation first: ansible-doc convention)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.sealing import Sealing  # noqa: E402
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError  # noqa: E402

ARGUMENTS = {
    "key_dir": {"type": "path", "no_log": False},
    "key_name": {"type": "str", "no_log": False},
    "interval_seconds": {"type": "int", "default": 900},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "step": {"type": "str", "choices": ["inspect", "generate", "confirm", "remove"], "default": "inspect"},
    "key_sha256": {"type": "str", "no_log": False},
}


def main() -> None:
    """Run one step on the target."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    asked, sealing = module.params, Sealing()
    result: dict[str, Any] = {"changed": False}
    try:
        if asked["step"] == "generate" and not module.check_mode:
            result = {"changed": True, "verification_key": sealing.generate(asked["interval_seconds"])}
        elif asked["step"] == "confirm" and not module.check_mode:
            sealing.confirm(asked["key_sha256"])
        elif asked["step"] == "remove":
            result["changed"] = bool(sealing.receipt()) if module.check_mode else sealing.remove()
    except HostError as exc:
        module.fail_json(msg=f"{exc}\nCure: {exc.cure}", reason=exc.reason, cure=exc.cure)
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}")
    result["sealing"] = sealing.state()
    result["key_sha256"] = sealing.receipt().get("key_sha256")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
