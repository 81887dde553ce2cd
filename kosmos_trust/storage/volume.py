"""The key slots of the sealed volume, from an empty disk to one that only the TPM and the operator can open.

Each step: look whether it holds already, write "begun", run the commands, prove the result, write "done". After a
power cut the same call goes on where it stopped. The temporary key of the install lives in memory, so a cut loses
it: before the recovery key exists nothing is lost by formatting again; afterwards the operator lends the recovery
key, or starts over while no file system has been made.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kosmos_trust.tpm import TpmError

from . import luks, temporary
from .disk import Disk, inspect, require_not_foreign
from .errors import StorageError, WaitingError
from .journal import Journal
from .plan import STEPS, Plan, ReadPcrs, tpm_pcrs
from .programs import Run, run
from .swap import active as active_swaps

REFUSED = 2  # cryptsetup: no key slot is opened by this key


class Volume:
    """One declared volume. Every method raises StorageError with a cure; WaitingError when a person is needed first."""

    def __init__(
        self, plan: Plan, journal: Journal | None = None, run: Run = run, read_pcrs: ReadPcrs = tpm_pcrs
    ) -> None:
        self.plan, self.run, self.read_pcrs = plan, run, read_pcrs
        self.journal = journal or Journal(plan.journal_path)

    @property
    def state(self) -> str:
        """The last step of STEPS that is done with all before it; "empty" before the first."""
        done: set[str] = set()
        for entry in self.journal.entries():
            if entry.step == "formatted" and entry.phase == "begun":
                done.clear()
            elif entry.phase == "done":
                done.add(entry.step)
        reached = "empty"
        for step in STEPS:
            if step not in done:
                break
            reached = step
        return reached

    def reached(self, step: str) -> bool:
        """Whether a step is done."""
        return self.state != "empty" and STEPS.index(self.state) >= STEPS.index(step)

    @property
    def uuid(self) -> str | None:
        """The LUKS UUID that this host gave its volume; None before the first format."""
        entry = self.journal.last("formatted", "done")
        return str(entry.facts["uuid"]) if entry else None

    def disk(self) -> Disk:
        """Look at the declared device. Ours is every UUID that we ever wrote, also that of a format cut short."""
        formats = [entry for entry in self.journal.entries() if entry.step == "formatted"]
        return inspect(
            self.plan.device, frozenset(str(entry.facts["uuid"]) for entry in formats), self.plan.root, self.run
        )

    def require(self, step: str) -> None:
        """Raise WaitingError unless a step is done."""
        if not self.reached(step):
            following = STEPS[0] if self.state == "empty" else STEPS[STEPS.index(self.state) + 1]
            raise WaitingError(
                f"this comes after the step {step}", where=self.plan.device, why=f"the volume is: {self.state}",
                cure=f"the next step is: {following}",
            )  # fmt: skip

    # From empty to formatted.

    def prepare(self, *, start_over: bool = False) -> None:
        """Make the LUKS2 volume with a temporary key. Does nothing when that is done and the key is still there."""
        disk, state = self.disk(), self.state
        if state == "empty":
            self._require_usable(disk)
            self._format(disk.size_bytes)
        elif self.reached("tpm_enrolled") and not start_over:
            require_not_foreign(disk)
        elif not self._opens_temporarily():
            require_not_foreign(disk)
            if state != "formatted" and not start_over:
                raise WaitingError(
                    "the temporary key is gone, as after every reboot", where=self.plan.device,
                    cure="go on with the recovery key (`enrol-tpm --recovery-key-stdin`), or `prepare --start-over`: "
                    "nothing has been stored on this volume yet",
                )  # fmt: skip
            self._start_over(disk.size_bytes)
        elif start_over:
            self._start_over(disk.size_bytes)

    def _require_usable(self, disk: Disk) -> None:
        """Accept an empty disk and, after a format that was cut short, also what that one has left in its header."""
        begun = self.journal.last("formatted", "begun")
        interrupted = begun is not None and begun.facts.get("size") == disk.size_bytes
        if not (interrupted and disk.only_bytes_in_the_header):
            require_not_foreign(disk)

    def _start_over(self, size: int) -> None:
        if self.journal.last("filesystem") is not None:
            raise StorageError(
                "there may be data on this volume; it is not formatted again", where=self.plan.device,
                cure="open it with the recovery key, save the data, empty the disk by hand",
            )  # fmt: skip
        self._format(size)

    def _format(self, size: int) -> None:
        clear = [swap.path for swap in active_swaps(self.plan.root, self.plan.mountpoint) if not swap.safe]
        if clear:
            raise StorageError(
                f"swap is written in clear: {', '.join(clear)}", why="the keys of this install could reach it",
                cure=f"run `swapoff {clear[0]}` and let the swap be encrypted or gone",
            )  # fmt: skip
        temporary.make(self.plan.temporary_key)
        identity = str(uuids.uuid4())
        self.journal.begun("formatted", uuid=identity, device=self.plan.device, size=size)
        self.run(luks.format_volume(self.plan.device, identity, self.plan.temporary_key, self.plan.kdf))
        header = self._header()
        if not self._opens_temporarily() or len(header.slots) != 1:
            raise StorageError("the new volume does not open", where=self.plan.device, cure="check the disk, run again")
        self.journal.done("formatted", uuid=identity, temporary_slot=header.slots[0])

    # The recovery key.

    def new_recovery_key(self, lent: bytes | None = None) -> bytes:
        """Add a recovery key and return it, this once. A key that was made but never proved is wiped first.

        `lent` is a recovery key that works, needed when the temporary key is gone. A proved key stays until `drill`
        has proved its successor.
        """
        self.require("formatted")
        with self._unlocking(lent) as key_file:
            proved = self.proved_recovery_slot
            stale = tuple(slot for slot in self._header().of_type(luks.RECOVERY_TOKEN) if slot != proved)
            self.journal.begun("recovery_enrolled")
            self._wipe(stale + self._orphans())
            before = self._header()
            key = luks.parse_recovery_key(self.run(luks.enrol_recovery(self.plan.device, key_file)).stdout)
            (slot,) = set(self._header().slots) - set(before.slots)
            self.journal.done("recovery_enrolled", slot=slot)
        return key

    def drill(self, key: bytes) -> int:
        """Prove that the operator's key opens the volume; return its slot. Older recovery keys are then destroyed."""
        self.require("recovery_enrolled")
        key = key.strip().lower()
        enrolled = self._header().of_type(luks.RECOVERY_TOKEN)
        slot = next((one for one in enrolled if self._opens(key, one)), None)
        if slot is None:
            raise StorageError(
                "this is not the recovery key of the volume", where=self.plan.device,
                cure="compare it with what was shown (eight groups of eight letters); if it is lost, "
                "make a new one with `recovery-key new`",
            )  # fmt: skip
        newest = self.journal.last("recovery_enrolled", "done")
        if newest and newest.facts.get("slot") != slot:
            raise StorageError("this is the old recovery key", where=self.plan.device, cure="enter the one shown last")
        if self.proved_recovery_slot != slot:
            self.journal.begun("recovery_proved", slot=slot)
        self.journal.done("recovery_proved", slot=slot)
        self._wipe(tuple(one for one in enrolled if one != slot))
        return slot

    @property
    def proved_recovery_slot(self) -> int | None:
        """The slot whose recovery key was proved last; None before, and after a format."""
        entry = self.journal.last("recovery_proved", "done") if self.reached("recovery_proved") else None
        return int(entry.facts["slot"]) if entry else None

    # The TPM.

    def enrol_tpm(self, lent: bytes | None = None, *, again: bool = False) -> None:
        """Add the TPM slot: PCR 11 by signature, PCR 12 literally zero. Where a signature is there, it is tried out.

        Done once; `again` replaces a slot that could not be proved. A proved one is for the rotation of keys to change.
        """
        self.require("recovery_proved")
        if self.reached("tpm_proved") or (self.reached("tpm_enrolled") and not again):
            return
        seal = self.plan.seal
        if not seal.public_key.is_file():
            raise StorageError(
                "the public key that signs PCR 11 is missing", where=str(seal.public_key),
                cure="let host_boot build the signed image first, or name the key in the declaration",
            )  # fmt: skip
        self._require_zero_pcrs()
        with self._unlocking(lent) as key_file:
            self.journal.begun("tpm_enrolled")
            self._wipe(self._header().of_type(luks.TPM2_TOKEN) + self._orphans())
            signed = seal.signature.is_file() and not self.initrd_only
            self.run(luks.enrol_tpm(self.plan.device, key_file, seal, with_signature=signed))
        # A PCR cannot be reset without a reboot: zero afterwards means that it was zero when it was sealed.
        self._require_zero_pcrs()
        self.journal.done("tpm_enrolled", slot=self._sealed_slot(), tried_out=signed, boot=self._boot())

    def _sealed_slot(self) -> int:
        """Return the TPM slot. Raises StorageError unless its token is bound to exactly what the plan declares."""
        seal, header = self.plan.seal, self._header()
        wanted = (seal.literal_pcrs, (luks.SIGNED_PCR,), luks.BANK, seal.public_key.read_bytes().strip())
        tokens = [one for one in header.tokens if one.type == luks.TPM2_TOKEN]
        found = [(one.literal_pcrs, one.signed_pcrs, one.bank, one.public_key.strip()) for one in tokens]
        if found != [wanted] or len(tokens[0].slots) != 1:
            raise StorageError(
                "the TPM slot is not bound as declared", where=self.plan.device,
                why=f"tokens: {[one[:3] for one in found]}, declared: {wanted[:3]} and the declared public key",
                cure="run enrol-tpm again; systemd-cryptenroll has to be version 252 or later",
            )  # fmt: skip
        return tokens[0].slots[0]

    def _require_zero_pcrs(self) -> None:
        # PCR 15 is zero in the initrd only; its zeros are spelled out to systemd-cryptenroll instead.
        asked = tuple(pcr for pcr in self.plan.seal.literal_zero if pcr != 15)
        try:
            values = self.read_pcrs(asked)
        except TpmError as error:
            raise StorageError("the TPM cannot be read", why=str(error), cure="run the preflight of the TPM") from error
        extended = [pcr for pcr in asked if set(values[pcr]) != {0}]
        if extended:
            raise StorageError(
                f"PCR {extended[0]} is not zero: this boot took a command line, a credential or an addon from outside",
                cure="look for it with `systemd-analyze pcrs`, in the boot menu and the SMBIOS strings; reboot without",
            )

    def prove_tpm(self) -> None:
        """Let the TPM open the volume. Raises WaitingError when that takes a boot of the signed image first."""
        self.require("tpm_enrolled")
        if self.initrd_only:
            self._prove_in_initrd()
        elif self.run(luks.test_tpm(self.plan.device)).code != 0:
            if not self.plan.seal.signature.is_file():
                raise WaitingError(
                    "this boot carries no signature for PCR 11, so the TPM slot cannot be proved yet",
                    where=str(self.plan.seal.signature), cure="reboot into the signed image and run again",
                )  # fmt: skip
            raise StorageError(
                "the TPM does not open the volume", where=self.plan.device,
                why="the signature does not fit the booted image or the enrolled key",
                cure="the temporary and recovery keys still work: check the image, then `enrol-tpm --again`",
            )  # fmt: skip
        if not self.reached("tpm_proved"):
            self.journal.done("tpm_proved", slot=self._sealed_slot())

    @property
    def initrd_only(self) -> bool:
        """Whether the TPM opens the volume in the initrd only (PCR 15 = 0), never on the running system."""
        return 15 in self.plan.seal.literal_zero

    def _prove_in_initrd(self) -> None:
        """The proof is a boot after the enrolment that came up with the volume open: headless, so by the TPM."""
        entry = self.journal.last("tpm_enrolled", "done")
        if entry and entry.facts.get("boot") != self._boot() and self.mapped:
            return
        raise WaitingError(
            "the TPM opens this volume in the initrd only", where=self.plan.device,
            why=f"{self.plan.mapping} is not open since a boot after the enrolment",
            cure="reboot into the signed image, with the crypttab line of `mount-plan` in its initrd; run again",
        )  # fmt: skip

    @property
    def mapped(self) -> bool:
        """Whether the volume is open."""
        return (self.plan.root / str(self.plan.mapping).lstrip("/")).exists()

    def _boot(self) -> str:
        return (self.plan.root / "proc/sys/kernel/random/boot_id").read_text().strip()

    def wipe_temporary(self) -> None:
        """Destroy the temporary slot, once the recovery key and the TPM are both proved to open the volume."""
        self.require("tpm_proved")
        if self.reached("temporary_wiped"):
            return
        self.prove_tpm()
        header, recovery = self._header(), self.proved_recovery_slot
        if recovery not in header.of_type(luks.RECOVERY_TOKEN):
            raise StorageError("the proved recovery slot is gone", where=self.plan.device, cure="make a new one")
        self.journal.begun("temporary_wiped")
        self._wipe(header.untold)
        if self._header().untold or self._opens_temporarily():
            raise StorageError("the temporary slot is still there", where=self.plan.device, cure="run again")
        temporary.destroy(self.plan.temporary_key)
        self.journal.done("temporary_wiped")

    # Shared by the steps.

    def _header(self) -> luks.Header:
        return luks.read_header(self.plan.device, self.run)

    def _opens(self, key: bytes, slot: int | None = None) -> bool:
        return self.run(luks.test_key(self.plan.device, slot=slot), key).code == 0

    def _opens_temporarily(self) -> bool:
        path = self.plan.temporary_key
        return path.is_file() and self.run(luks.test_key(self.plan.device, str(path))).code == 0

    def _orphans(self) -> tuple[int, ...]:
        """Slots that a cut between slot and token has left: no token names them, and they are not the temporary one.

        Only while installing, when all slots are ours. Afterwards the owner may have added one, and it is left alone.
        """
        if self.reached("temporary_wiped"):
            return ()
        entry = self.journal.last("formatted", "done")
        return tuple(slot for slot in self._header().untold if not entry or slot != entry.facts["temporary_slot"])

    @property
    def unaccounted(self) -> tuple[int, ...]:
        """Key slots that this package knows nothing about, once the temporary one is gone."""
        return self._header().untold if self.reached("temporary_wiped") else ()

    def _wipe(self, slots: tuple[int, ...]) -> None:
        if slots:
            self.run(luks.wipe_slots(self.plan.device, slots))

    @contextmanager
    def _unlocking(self, lent: bytes | None) -> Iterator[Path]:
        """Yield a key file that is proved to open the volume: the lent key, or the temporary one."""
        if lent is not None:
            key = lent.strip().lower()
            if not self._opens(key):
                raise StorageError(
                    "the lent key does not open the volume", where=self.plan.device, cure="check the key"
                )
            self.journal.begun("recovery_used", what="lent")
            with temporary.lent(key, self.plan.memory) as path:
                yield path
            self.journal.done("recovery_used", what="lent")
        elif self._opens_temporarily():
            yield self.plan.temporary_key
        else:
            raise WaitingError(
                "no key at hand opens the volume: the temporary one is gone, as after every reboot",
                where=self.plan.device, cure="lend the recovery key (--recovery-key-stdin)",
            )  # fmt: skip
