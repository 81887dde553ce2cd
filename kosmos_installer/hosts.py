"""Look into an inventory's hosts.yml: is there a host to make the appliance of?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kosmos_installer import yaml_file
from kosmos_installer.errors import FileError

#: The inventory group that every playbook works on.
GROUP = "appliance"
_CURE = "Change the file, then: kosmos-install validate"
_EXAMPLE = f"{GROUP}:\n  hosts:\n    kosmos-1:\n      ansible_host: 192.0.2.10"


def names(path: Path) -> tuple[str, ...]:
    """The hosts of group `appliance`, its children included. Raises FileError (exit 2).

    Only the structure is judged: the values are Ansible's own, so templates and encrypted ones are as good as others.
    """
    document = yaml_file.read(path)
    if document.data is None:
        raise FileError(document.file, document.problems, _CURE)
    document.problems.clear()
    found = tuple(dict.fromkeys(_members(_mapping(document.data), inside=False)))
    if not found:
        document.problem((), f"The group `{GROUP}` with a host in it is missing.", wanted=_EXAMPLE)
        raise FileError(document.file, document.problems, _CURE)
    return found


def _members(groups: dict[str, Any], *, inside: bool) -> Iterator[str]:
    """The hosts of `groups` that belong to ours. inside: these groups are children of ours."""
    for name, group in groups.items():
        ours = inside or name == GROUP
        if ours:
            yield from _mapping(_mapping(group).get("hosts"))
        yield from _members(_mapping(_mapping(group).get("children")), inside=ours)


def _mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
