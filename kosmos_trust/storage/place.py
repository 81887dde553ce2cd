"""From an opened volume to data that lives on it: file system, mount, folders moved, install finished."""

from __future__ import annotations

from pathlib import Path

from kosmos_trust.durable import sync_folder

from . import luks, recovery
from .errors import StorageError, WaitingError
from .move import is_moved, move
from .programs import Command
from .temporary import file_system_of
from .units import on_volume
from .volume import Volume

BLKID_NOTHING = 2
MKFS_TIMEOUT_SECONDS = 3600.0


def make_filesystem(volume: Volume) -> None:
    """Open the volume with the TPM and make ext4 on it, once; never where something was or may have been stored."""
    volume.require("temporary_wiped")
    plan = volume.plan
    if not volume.mapped:
        volume.run(luks.open_with_tpm(plan.device, plan.name))
    found = _probe(volume)
    if volume.reached("filesystem"):
        if found.get("TYPE") != "ext4":
            raise StorageError(
                "the file system of the volume is gone", where=str(plan.mapping),
                why=f"blkid finds {found or 'nothing'}",
                cure="do not format: restore from a backup, or ask fsck.ext4 for its copies of the superblock",
            )  # fmt: skip
        return
    begun = volume.journal.last("filesystem", "begun") is not None
    if found and not begun:
        raise StorageError(
            "there is something on the new volume already", where=str(plan.mapping), why=f"blkid finds {found}",
            cure="this is not what was formatted here; look at it before anything else",
        )  # fmt: skip
    volume.journal.begun("filesystem")
    force = ("-F",) if begun else ()
    make = ("mkfs.ext4", "-q", *force, "-L", plan.name, str(plan.mapping))
    volume.run(Command(make, timeout_seconds=MKFS_TIMEOUT_SECONDS))
    volume.journal.done("filesystem", uuid=_probe(volume)["UUID"])


def mount(volume: Volume) -> None:
    """Mount the volume where the plan says. Raises StorageError when something else is mounted there."""
    volume.require("filesystem")
    plan = volume.plan
    if not volume.mapped:
        volume.run(luks.open_with_tpm(plan.device, plan.name))
    if not plan.mountpoint.is_dir():
        plan.mountpoint.mkdir(mode=0o755, parents=True)
        sync_folder(plan.mountpoint.parent)
    if not plan.mountpoint.is_mount():
        volume.run(Command(("mount", "-t", "ext4", "-o", plan.mount_options, str(plan.mapping), str(plan.mountpoint))))
    device = plan.mapping.stat().st_rdev
    if plan.mountpoint.stat().st_dev != device:
        raise StorageError(
            "something else is mounted here", where=str(plan.mountpoint),
            why=f"it is {file_system_of(plan.mountpoint)[2]}, not {plan.mapping}", cure="unmount it and run again",
        )  # fmt: skip
    if not volume.reached("mounted"):
        volume.journal.done("mounted")


def move_folders(volume: Volume) -> None:
    """Move every declared folder onto the volume. The services that use them have to be stopped."""
    volume.require("mounted")
    plan = volume.plan
    if not plan.mountpoint.is_mount():
        raise StorageError("the volume is not mounted", where=str(plan.mountpoint), cure="run `mount` first")
    for folder in plan.folders:
        target = on_volume(plan, folder)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not is_moved(Path(folder), target):
            volume.journal.begun("moved", folder=folder)
            move(Path(folder), target, volume.run)
    if not volume.reached("moved"):
        volume.journal.done("moved")


def finish(volume: Volume) -> None:
    """Declare the install finished: data moved, and the recovery key drilled and acknowledged by a person."""
    volume.require("moved")
    record = recovery.read(volume.plan)
    slot = volume.proved_recovery_slot
    if record is None or record.slot != slot or record.volume != volume.uuid:
        raise WaitingError(
            "nobody has acknowledged that the recovery key is kept", where=volume.plan.device,
            cure="store the key outside this host, then run `recovery-key acknowledge --by NAME`",
        )  # fmt: skip
    if not volume.reached("finished"):
        volume.journal.done("finished")


def advance(volume: Volume) -> str:
    """Take every step that needs no person, from where the volume stands; return the state. Raises as the steps do."""
    volume.wipe_temporary()
    for step in (make_filesystem, mount, move_folders, finish):
        step(volume)
    return volume.state


def _probe(volume: Volume) -> dict[str, str]:
    command = Command(("blkid", "-p", "-o", "export", str(volume.plan.mapping)), ok=(0, BLKID_NOTHING))
    lines = volume.run(command).stdout.splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines) if key in ("TYPE", "UUID", "LABEL")}
