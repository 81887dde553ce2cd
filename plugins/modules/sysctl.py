#!/usr/bin/python
# Apache-2.0 (see LICENSE)
# ruff: noqa: E402 - documentation first, as ansible-doc wants it
"""Keep kernel parameters: in one file for the next boot, and in the running kernel."""

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

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, write_synced

MEMORY = "var/lib/kosmos/sysctl"
HEADER = "# Written by KOSMOS, and removed by its reset. One owner for each key: the role that names this file.\n"


def render(settings: dict[str, object]) -> str:
    """Return the file's text; keys sorted, so that a diff shows what changed and nothing else."""
    return HEADER + "".join(f"{key} = {plain(value)}\n" for key, value in sorted(settings.items()))


def plain(value: object) -> str:
    """Return a value as the kernel prints it, white space folded."""
    return " ".join(str(int(value) if isinstance(value, bool) else value).split())


def expand(root: Path, settings: dict[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return (value by path below /proc/sys, keys that do not exist).

    Paths, not dotted names, because the name of an interface may hold a dot. A plain key wins over a pattern.
    """
    base, wanted, unknown = root / "proc/sys", {}, []
    for key in sorted(settings, key=lambda name: "*" not in name):  # patterns first, so plain names overwrite
        pattern = key.replace(".", "/")
        found = [path for path in sorted(base.glob(pattern)) if path.is_file()]
        if not found:
            unknown.append(key)
        for path in found:
            wanted[str(path.relative_to(base))] = plain(settings[key])
    return wanted, sorted(unknown)


class Kernel:
    """The parameters of the running kernel, by path below /proc/sys."""

    def __init__(self, root: Path) -> None:
        self.base = root / "proc/sys"

    def read(self, key: str) -> str | None:
        """Return the value, or None when the kernel has no such key."""
        try:
            return " ".join((self.base / key).read_text().split())
        except FileNotFoundError:
            return None

    def write(self, key: str, value: str) -> None:
        """Set a value. Raises OSError when the kernel refuses it."""
        (self.base / key).write_text(value + "\n")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            "live": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    file = root / module.params["path"].lstrip("/")
    memory = root / MEMORY / f"{file.name}.json"
    kernel = Kernel(root)
    settings, unknown = module.params["settings"], []
    known = json.loads(memory.read_text()) if memory.exists() else {}
    before_text = file.read_text() if file.exists() else None

    if module.params["state"] == "present":
        after_text: str | None = render(settings)
        wanted, unknown = expand(root, settings)
    else:
        after_text, wanted = None, known
    if not module.params["live"]:
        wanted = {}
    before = {key: kernel.read(key) for key in wanted}
    differing = {key: value for key, value in wanted.items() if before[key] is not None and before[key] != value}
    until_reboot: list[str] = []

    if not module.check_mode:
        if after_text is None:
            file.unlink(missing_ok=True)
        elif after_text != before_text:
            make_folders(file.parent, 0o755)
            write_synced(file, after_text, 0o644)
        if after_text is not None and differing:
            make_folders(memory.parent)
            write_synced(
                memory, json.dumps({key: before[key] for key in differing} | known, indent=1, sort_keys=True), 0o600
            )
        for key, value in differing.items():
            try:
                kernel.write(key, value)
            except OSError as error:
                if after_text is not None:
                    module.fail_json(
                        msg=f"{key}: the kernel refuses {value!r} (it has {before[key]!r}): {error.strerror}. "
                        "In a container the kernel belongs to the host: set `live: false`."
                    )
                until_reboot.append(key)
        if after_text is None:
            memory.unlink(missing_ok=True)

    changed = after_text != before_text or any(key not in until_reboot for key in differing)
    module.exit_json(
        changed=changed,
        keys=sorted(map(dotted, differing)),
        unknown=unknown,
        until_reboot=sorted(map(dotted, until_reboot)),
        diff=[
            {
                "before_header": str(file),
                "after_header": str(file),
                "before": before_text or "",
                "after": after_text or "",
            },
            {
                "before_header": "running kernel",
                "after_header": "running kernel",
                "before": "".join(f"{dotted(key)} = {before[key]}\n" for key in sorted(differing)),
                "after": "".join(f"{dotted(key)} = {value}\n" for key, value in sorted(differing.items())),
            },
        ],
    )


def dotted(key: str) -> str:
    """Return a path below /proc/sys as people write it: parts joined by dots."""
    return key.replace("/", ".")


if __name__ == "__main__":
    main()
