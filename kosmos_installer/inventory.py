"""Which appliance a command is about: a folder with hosts.yml and group_vars/all/kosmos.yml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError

APPLIANCE_FILE = Path("group_vars/all/kosmos.yml")
HOSTS_FILE = Path("hosts.yml")
#: Ships to be read, not to be applied: its addresses are those of RFC 5737.
EXAMPLE = "example"


@dataclass(frozen=True)
class Inventory:
    """One appliance's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def hosts_file(self) -> Path:
        """How the host is reached."""
        return self.folder / HOSTS_FILE

    @property
    def appliance_file(self) -> Path:
        """What the host shall be."""
        return self.folder / APPLIANCE_FILE


def select(given: str | None, current: Path, shipped: Path) -> Inventory:
    """The inventory that `-i GIVEN` names; without one, the only appliance in `current`/inventories.

    given: a folder, its hosts.yml, or the bare name of a folder in ./inventories or among the `shipped` ones.
    Raises KosmosError (exit 2) when there is none, or more than one and none was named.
    """
    return _named(given, current, shipped) if given else _only_one(current)


def _named(given: str, current: Path, shipped: Path) -> Inventory:
    asked = Path(given)
    tried = [current / asked]
    if len(asked.parts) == 1:
        tried += [current / "inventories" / asked, shipped / asked]
    for path in tried:
        folder = path.parent if path.name == HOSTS_FILE.name and path.is_file() else path
        if folder.is_dir():
            return _complete(Inventory(folder))
    raise KosmosError(
        f"There is no inventory {given}",
        where=", ".join(str(path) for path in tried),
        why=_known(current),
        cure="Name an existing one with -i, or make one: kosmos-install init",
        exit_code=ExitCode.USAGE,
    )


def _only_one(current: Path) -> Inventory:
    folders = _folders(current)
    if len(folders) == 1:
        return _complete(Inventory(folders[0]))
    if not folders:
        raise KosmosError(
            "There is no appliance in this folder",
            where=str(current / "inventories"),
            cure="Make one with `kosmos-install init`, or name one with -i inventories/NAME.",
            exit_code=ExitCode.USAGE,
        )
    raise KosmosError(
        "Which appliance? There is more than one in this folder",
        where=str(current / "inventories"),
        why=_known(current),
        cure=f"Name it, for instance: -i inventories/{folders[0].name}",
        exit_code=ExitCode.USAGE,
    )


def _complete(inventory: Inventory) -> Inventory:
    for file in (inventory.appliance_file, inventory.hosts_file):
        if not file.exists():
            raise KosmosError(
                f"The inventory {inventory.folder} is not complete",
                where=str(file),
                why="This file is missing.",
                cure="`kosmos-install init` writes both files; inventories/example shows them.",
                exit_code=ExitCode.USAGE,
            )
    return inventory


def _folders(current: Path) -> list[Path]:
    parent = current / "inventories"
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if _is_appliance(path))


def _known(current: Path) -> str:
    names = [folder.name for folder in _folders(current)]
    return f"Found: {', '.join(names)}." if names else "There is none in ./inventories."


def _is_appliance(path: Path) -> bool:
    """A folder with an appliance file, neither the example nor one that `init` is just writing."""
    return path.name != EXAMPLE and not path.name.startswith(".") and (path / APPLIANCE_FILE).exists()
