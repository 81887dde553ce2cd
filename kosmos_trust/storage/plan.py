"""What is declared for the sealed volume of one host, and the steps from an empty disk to a finished one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import StorageError
from .luks import BANK, Kdf, Seal

#: The order is the law: a slot that works is never destroyed before the next one has been proved.
STEPS = (
    "formatted",
    "recovery_enrolled",
    "recovery_proved",
    "tpm_enrolled",
    "tpm_proved",
    "temporary_wiped",
    "filesystem",
    "mounted",
    "moved",
    "finished",
)
FOLDERS = ("/var/lib/kosmos", "/var/lib/rancher", "/var/lib/containerd", "/var/lib/postgresql")
#: On the root disk: the state of the volume has to be readable while the volume is closed. It holds no secret.
STATE_FOLDER = Path("/var/lib/kosmos-storage")

ReadPcrs = Callable[[tuple[int, ...]], Mapping[int, bytes]]


def _machine_kdf() -> Kdf:
    return Kdf.for_machine(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), os.cpu_count() or 1)


@dataclass(frozen=True)
class Plan:
    """What is declared.

    `device` by a path that survives reboots (/dev/disk/by-id/...), `state` where journal and acknowledgement lie,
    `memory` where temporary keys lie (a tmpfs), `name` of the mapping, `folders` that live on the volume.
    """

    device: str
    state: Path = STATE_FOLDER
    memory: Path = Path("/run/kosmos/storage")
    seal: Seal = field(default_factory=Seal)
    kdf: Kdf = field(default_factory=_machine_kdf)
    name: str = "kosmos-data"
    mountpoint: Path = Path("/srv/kosmos-data")
    mount_options: str = "nodev"
    folders: tuple[str, ...] = FOLDERS
    root: Path = Path("/")

    @property
    def journal_path(self) -> Path:
        """Where the journal of the volume lies."""
        return self.state / "volume.jsonl"

    @property
    def temporary_key(self) -> Path:
        """Where the key of the install lies, until the volume has better ones."""
        return self.memory / "temporary.key"

    @property
    def mapping(self) -> Path:
        """The opened volume."""
        return Path("/dev/mapper") / self.name


#: Keys of the declaration file, and how their JSON values become fields.
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "device": str,
    "state": Path,
    "memory": Path,
    "name": str,
    "mountpoint": Path,
    "mount_options": str,
    "folders": lambda value: tuple(str(one) for one in value),
}
#: Every key of the volume is 256 random bits, so the cost of the derivation protects nothing that time could guess.
_KDF_FIELDS = ("memory_kib", "lanes", "milliseconds", "passes")
_SEAL_FIELDS: dict[str, Callable[[Any], Any]] = {
    "public_key": Path,
    "signature": Path,
    "tpm_device": str,
    "literal_zero": lambda value: tuple(int(one) for one in value),
    "literal_now": lambda value: tuple(int(one) for one in value),
}


def load(path: Path) -> Plan:
    """Return the plan of a declaration file (JSON). Raises StorageError for an unknown key or an unusable value."""
    groups = {"keys": (*_FIELDS, "seal", "kdf"), "of seal": _SEAL_FIELDS, "of kdf": _KDF_FIELDS}
    cure = "; ".join(f"{name}: {', '.join(fields)}" for name, fields in groups.items())
    try:
        content = json.loads(path.read_text())
        seal, kdf = content.pop("seal", {}), content.pop("kdf", None)
        unknown = [*(set(content) - set(_FIELDS)), *(f"seal.{key}" for key in set(seal) - set(_SEAL_FIELDS))]
        unknown += [f"kdf.{key}" for key in set(kdf or {}) - set(_KDF_FIELDS)]
        if unknown or "device" not in content:
            what = f"unknown: {', '.join(sorted(unknown))}" if unknown else "no device"
            raise StorageError(what, where=str(path), cure=cure)
        fields = {key: _FIELDS[key](value) for key, value in content.items()}
        if kdf is not None:
            fields["kdf"] = Kdf(**{key: int(value) for key, value in kdf.items()})
        return Plan(**fields, seal=checked(Seal(**{key: _SEAL_FIELDS[key](value) for key, value in seal.items()})))
    except OSError as error:
        raise StorageError("the declaration cannot be read", where=str(path), why=error.strerror or "") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise StorageError("the declaration is not usable", where=str(path), why=str(error), cure=cure) from None


def checked(seal: Seal) -> Seal:
    """Return the seal. Raises StorageError when it would leave out PCR 12, or name a PCR that does not exist."""
    if 12 not in seal.literal_zero:
        raise StorageError(
            "PCR 12 is not bound to zero",
            why="an SMBIOS string or an addon can change the kernel command line, and signed PCR 11 does not see it",
            cure="let literal_zero contain 12",
        )
    wrong = [pcr for pcr in seal.literal_pcrs if not 0 <= pcr < 24 or pcr == 11]
    if wrong or set(seal.literal_zero) - {12, 15}:
        raise StorageError(
            f"literal PCRs {', '.join(map(str, seal.literal_pcrs))} cannot be used",
            why="11 is bound by signature, and only 12 and 15 are zero on a good boot",
        )
    return seal


def tpm_pcrs(pcrs: tuple[int, ...]) -> Mapping[int, bytes]:
    """Return PCR values (SHA-256 bank) of this machine's TPM. Raises TpmError when there is none or it refuses."""
    from kosmos_trust.tpm import open_device  # noqa: PLC0415  (a status without a TPM must not need one)

    with open_device() as device:
        return device.pcr_values(BANK, pcrs)
