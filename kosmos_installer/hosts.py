"""Look into an inventory's hosts.yml: is there a host to make the appliance of?"""

from __future__ import annotations

from pathlib import Path

from kosmos_installer import yaml_file
from kosmos_installer.errors import FileError

#: The inventory group that every playbook works on.
GROUP = "appliance"
_CURE = "Change the file, then: kosmos-install validate"
_EXAMPLE = f"{GROUP}:\n  hosts:\n    kosmos-1:\n      ansible_host: 192.0.2.10"


def names(path: Path) -> tuple[str, ...]:
    """The hosts of group `appliance` in the YAML inventory at `path`. Raises FileError (exit 2)."""
    document = yaml_file.read(path)
    found: tuple[str, ...] = ()
    if document.data is not None:
        group = _below(_below({"": document.data}, ""), GROUP)
        hosts = _below(group, "hosts")
        found = tuple(hosts)
        if not found:
            reason = f"The group `{GROUP}` with a host in it is missing."
            document.problem((GROUP, "hosts"), reason, wanted=_EXAMPLE)
    if document.problems:
        raise FileError(document.file, document.problems, _CURE)
    return found


def _below(value: dict[str, object], key: str) -> dict[str, object]:
    """The mapping under `key`, empty when it is anything else."""
    below = value.get(key)
    return below if isinstance(below, dict) else {}
