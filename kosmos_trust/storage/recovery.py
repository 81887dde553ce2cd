"""The recovery key: what is recorded about it (never the key, never a hash of it), and what is known about its use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kosmos_trust.durable import replace

from . import luks
from .errors import JournalError, StorageError
from .plan import Plan
from .volume import Volume

#: What nobody can know from a LUKS header: opening a volume leaves no trace in it.
BLIND_SPOTS = (
    "`cryptsetup open` by hand as root on this host",
    "another system started on this machine",
    "the disk, or a copy of it, in another machine",
)


@dataclass(frozen=True)
class Acknowledgement:
    """Who says that the key is kept outside this host: when (seconds since 1970), whose, which slot, which volume."""

    at: int
    by: str
    slot: int
    volume: str


@dataclass(frozen=True)
class Use:
    """One recorded use: when (seconds since 1970), and what for (drill, lent, open)."""

    at: int
    what: str


@dataclass(frozen=True)
class KeyStatus:
    """What is known about the recovery key.

    `used` is True when it was lent or opened the volume through us (drills are proofs, and counted apart), or when
    the volume is open although the TPM refuses; False means "not seen", and `unseen` names what would not be seen.
    """

    slot: int | None
    acknowledged: Acknowledgement | None
    drills: int
    last_drill: int | None
    used: bool
    uses: tuple[Use, ...]
    suspicion: str
    unseen: tuple[str, ...] = BLIND_SPOTS


def record_path(plan: Plan) -> Path:
    """Where the acknowledgement lies."""
    return plan.state / "recovery-acknowledged.json"


def read(plan: Plan) -> Acknowledgement | None:
    """Return the acknowledgement, None when there is none. Raises JournalError when it cannot be read."""
    path = record_path(plan)
    try:
        content = json.loads(path.read_text())
        return Acknowledgement(int(content["at"]), str(content["by"]), int(content["slot"]), str(content["volume"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JournalError(
            "the acknowledgement cannot be read", where=str(path), why=type(error).__name__, cure="acknowledge again"
        ) from None


def acknowledge(volume: Volume, by: str) -> Acknowledgement:
    """Record that a person keeps the proved key. Raises StorageError before the drill, and for an unusable name."""
    slot, uuid = volume.proved_recovery_slot, volume.uuid
    if slot is None or uuid is None:
        raise StorageError(
            "no recovery key has been proved yet", where=volume.plan.device, cure="run `recovery-key drill` first"
        )
    name = by.strip()
    if not (0 < len(name) <= 100 and name.isprintable()) or luks.RECOVERY_KEY.search(name.lower().encode()):
        raise StorageError("this is not a person's name", cure="give a name, such as --by 'Ada Lovelace'")
    record = Acknowledgement(int(volume.journal.clock()), name, slot, uuid)
    replace(record_path(volume.plan), json.dumps(asdict(record), sort_keys=True).encode() + b"\n", 0o644)
    return record


def open_volume(volume: Volume, key: bytes) -> None:
    """Open the volume with the recovery key, and record it first: this is the use that `status` reports.

    Raises StorageError when the volume is open already, or when this is not its key; neither counts as a use.
    """
    volume.require("recovery_proved")
    plan, key = volume.plan, key.strip().lower()
    if volume.mapped:
        raise StorageError("the volume is open already", where=str(plan.mapping), cure="nothing is to be done")
    if volume.run(luks.test_key(plan.device, slot=volume.proved_recovery_slot), key).code != 0:
        raise StorageError("this is not the recovery key of the volume", where=plan.device, cure="check the key")
    volume.journal.begun("recovery_used", what="open")
    volume.run(luks.open_with_key(plan.device, plan.name), key)
    volume.journal.done("recovery_used", what="open")


def status(volume: Volume, *, ask_tpm: bool = True) -> KeyStatus:
    """Return what is known. `ask_tpm` lets the TPM try once, without opening anything (about a second)."""
    entries = volume.journal.entries()
    start = max((number for number, one in enumerate(entries) if one.step == "formatted"), default=0)
    drills = [one.at for one in entries[start:] if one.step == "recovery_proved" and one.phase == "done"]
    uses = tuple(
        Use(one.at, str(one.facts.get("what", "")))
        for one in entries[start:]
        if one.step == "recovery_used" and one.phase == "begun"
    )
    suspicion = ""
    if ask_tpm and volume.reached("temporary_wiped") and volume.mapped and not volume.initrd_only:
        refused = volume.run(luks.test_tpm(volume.plan.device)).code != 0
        if refused:
            suspicion = "the volume is open but the TPM refuses to open it now: another key may have opened it"
    return KeyStatus(
        slot=volume.proved_recovery_slot,
        acknowledged=read(volume.plan),
        drills=len(drills),
        last_drill=drills[-1] if drills else None,
        used=bool(uses or suspicion),
        uses=uses,
        suspicion=suspicion,
    )
