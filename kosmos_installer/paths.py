"""Where things lie: the Ansible half of the product, and this operator's state and cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class AnsibleTree:
    """The playbooks, roles and plugins, from a checkout or from an installed wheel.

    root: the folder of collection kosmos.appliance.  collections: what ANSIBLE_COLLECTIONS_PATH must name.
    """

    root: Path
    collections: Path
    origin: str

    @property
    def playbooks(self) -> Path:
        """One file per layer and per verb."""
        return self.root / "playbooks"

    @property
    def roles(self) -> Path:
        """One folder per role."""
        return self.root / "roles"

    @property
    def inventories(self) -> Path:
        """The inventories that ship with the product: example and lab."""
        return self.root / "inventories"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what Ansible needs to run from this tree, whatever the current folder is.

        Our own Python's programs come first, so that the pinned ansible-playbook runs. Ansible refuses to start
        without a UTF-8 locale, and its messages are parsed, so they must be English.
        """
        programs = str(Path(sys.executable).parent)
        return {
            **base,
            "ANSIBLE_CONFIG": str(self.root / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_ROLES_PATH": str(self.roles),
            "LC_ALL": "C.UTF-8",
            "PATH": os.pathsep.join([programs, base.get("PATH", os.defpath)]),
        }


def ansible_tree(package: Path = _PACKAGE) -> AnsibleTree:
    """Find the Ansible half next to the installed package, or in the checkout that holds it.

    Raises KosmosError when neither is there: the installation is damaged.
    """
    wheel = package / "_collection"
    candidates = [
        AnsibleTree(wheel / "ansible_collections/kosmos/appliance", wheel, "wheel"),
        AnsibleTree(package.parent, package.parent / "collections", "checkout"),
    ]
    for tree in candidates:
        if (tree.root / "galaxy.yml").is_file() and tree.roles.is_dir():
            return tree
    raise KosmosError(
        "The playbooks and roles of kosmos-install are missing",
        where=" or ".join(str(tree.root) for tree in candidates),
        why="The installation is not complete.",
        cure="Install it again: pip install --force-reinstall kosmos-appliance",
        exit_code=ExitCode.FAILED,
    )


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Run records, labs and locks: `${XDG_STATE_HOME:-~/.local/state}/kosmos`. It may not exist yet."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """What can be built again: `${XDG_CACHE_HOME:-~/.cache}/kosmos`. It may not exist yet."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def ensure_private(folder: Path) -> Path:
    """Make `folder` and what is missing above it, readable by its owner only; give it back."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """The XDG base directory specification: an unset, empty or relative value means the default."""
    value = environ.get(variable, "")
    if value and Path(value).is_absolute():
        return Path(value) / "kosmos"
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / fallback / "kosmos"
