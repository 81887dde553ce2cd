"""The texts that open and mount the sealed volume at boot: crypttab, mount units, and what services need to wait.

The volume is opened after the root file system, headless (nobody is asked, so a refused TPM never hangs the boot) and
`nofail` (the host stays reachable without it). That makes opening asynchronous: who needs the data says so with
RequiresMountsFor=, and does not start without it. Sources: crypttab(5), systemd.mount(5), systemd.unit(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .plan import Plan

DEVICE_TIMEOUT_SECONDS = 120
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")


@dataclass(frozen=True)
class Text:
    """One file: its absolute path and what it says."""

    path: str
    text: str


def escaped(text: str) -> str:
    """Return a string as it stands in a unit's name: systemd.unit(5), "String escaping for inclusion in unit names"."""
    letters = (
        "-" if one == "/" else one if one in _PLAIN else "".join(f"\\x{b:02x}" for b in one.encode()) for one in text
    )
    joined = "".join(letters)
    return f"\\x2e{joined[1:]}" if joined.startswith(".") else joined


def escaped_path(path: Path) -> str:
    """Return a path as it stands in a mount unit's name."""
    return escaped("/".join(part for part in path.parts if part != "/")) or "-"


def crypttab_line(plan: Plan, uuid: str, *, discard: bool = False, measure: bool = True) -> str:
    """Return the crypttab line of the volume.

    `discard` lets TRIM through: deleted blocks are then really erased by many SSDs, and everybody who holds the disk
    sees which blocks are unused. `measure` extends PCR 15 with the volume key once it is open: nothing else that is
    bound to PCR 15 = 0 opens after it, and a rogue volume shows in attestation.
    """
    options = ["luks", "headless=true", "nofail", f"tpm2-device={plan.seal.tpm_device}"]
    options += [f"tpm2-signature={plan.seal.signature}", f"x-systemd.device-timeout={DEVICE_TIMEOUT_SECONDS}s"]
    if measure:
        options.append("tpm2-measure-pcr=yes")
    if 15 in plan.seal.literal_zero:
        options.append("x-initrd.attach")
    if discard:
        options.append("discard")
    return f"{plan.name} UUID={uuid} none {','.join(options)}"


def mount_units(plan: Plan) -> list[Text]:
    """Return the mount of the volume and one bind mount for each folder.

    They hang on multi-user.target, not on local-fs.target: a volume that does not open must not end in emergency mode.
    """
    after = f"After=systemd-cryptsetup@{escaped(plan.name)}.service"
    volume = Text(
        f"/etc/systemd/system/{escaped_path(plan.mountpoint)}.mount",
        _mount(
            "Sealed data volume",
            after,
            plan.mountpoint,
            f"What={plan.mapping}\nType=ext4\nOptions={plan.mount_options}",
        ),
    )
    needs = f"RequiresMountsFor={plan.mountpoint}"
    binds = [
        Text(
            f"/etc/systemd/system/{escaped_path(Path(folder))}.mount",
            _mount(
                f"{folder} on the sealed data volume",
                needs,
                Path(folder),
                f"What={on_volume(plan, folder)}\nType=none\nOptions=bind",
            ),
        )
        for folder in plan.folders
    ]
    return [volume, *binds]


def waiting_drop_in(service: str, folders: list[str]) -> Text:
    """Return a drop-in that keeps a service from starting, and from writing in clear, while its data is not there."""
    mounted = "".join(f"AssertPathIsMountPoint={folder}\n" for folder in folders)
    return Text(
        f"/etc/systemd/system/{service}.d/10-kosmos-storage.conf",
        f"# The data lives on the sealed volume; without it nothing may be written to the mount point.\n"
        f"[Unit]\nRequiresMountsFor={' '.join(folders)}\n{mounted}",
    )


def on_volume(plan: Plan, folder: str) -> Path:
    """Return where a folder lies on the volume: var/lib/kosmos for /var/lib/kosmos."""
    return plan.mountpoint / folder.lstrip("/")


def _mount(description: str, order: str, where: Path, source: str) -> str:
    # Without default dependencies: they would put the mount before local-fs.target, which must not wait for a TPM.
    return (
        f"[Unit]\nDescription={description}\nDefaultDependencies=no\n{order}\n"
        f"Conflicts=umount.target\nBefore=umount.target\n\n"
        f"[Mount]\nWhere={where}\n{source}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
