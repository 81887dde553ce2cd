"""Change the PCR signing keys without ever being locked out: the new slot first, the old one last.

    KEYS     the new keys are here
    ENROL    each sealed volume has a slot for its new key, beside the old one
    IMAGES   every image on the ESP is signed with both, so that each of them opens with either slot
    RESTART  one of them has started
    PROVE    it is the one that we mean, and the TPM opens with the new key
    WIPE     the old slots are gone
    FINISH   the new keys are the keys

The journal names the step that is due, and is written before the step's work begins. Each step looks at the world first
and does what is missing, so a step that was cut is simply done again. Until WIPE the old keys open everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from kosmos_trust import durable

from .errors import RotationError
from .roles import Role
from .token import Volume

API_VERSION = "kosmos.boot.rotation/v1"


class Step(Enum):
    """The step that is due."""

    KEYS = "keys"
    ENROL = "enrol"
    IMAGES = "images"
    RESTART = "restart"
    PROVE = "prove"
    WIPE = "wipe"
    FINISH = "finish"
    DONE = "done"

    @property
    def following(self) -> Step:
        """The next one."""
        steps = list(Step)
        return steps[min(steps.index(self) + 1, len(steps) - 1)]


@dataclass(frozen=True)
class Journal:
    """The step that is due, the fingerprints by role, the slots of each volume before ENROL, the boot of IMAGES."""

    step: Step
    old: Mapping[Role, str]
    new: Mapping[Role, str] = field(default_factory=dict)
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    boot_id: str = ""

    def render(self) -> bytes:
        """Return the journal as JSON."""
        content = {
            "apiVersion": API_VERSION,
            "step": self.step.value,
            "old": {role.value: mark for role, mark in self.old.items()},
            "new": {role.value: mark for role, mark in self.new.items()},
            "slots": {device: list(slots) for device, slots in self.slots.items()},
            "boot_id": self.boot_id,
        }
        return json.dumps(content, indent=2).encode() + b"\n"


def read(path: Path) -> Journal | None:
    """Return a journal, None when no rotation has begun. Raises RotationError when it cannot be understood."""
    try:
        content: Any = json.loads(path.read_bytes())
        if content["apiVersion"] != API_VERSION:
            raise ValueError(f"not of version {API_VERSION}")
        return Journal(
            Step(content["step"]),
            {Role(role): str(mark) for role, mark in content["old"].items()},
            {Role(role): str(mark) for role, mark in content["new"].items()},
            {str(device): tuple(map(int, slots)) for device, slots in content["slots"].items()},
            str(content["boot_id"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RotationError(
            "the journal cannot be understood", where=str(path), why=f"{type(error).__name__}: {error}",
            cure="do not remove it before you have seen both keys with: cryptsetup luksDump",
        ) from None  # fmt: skip


@dataclass(frozen=True)
class Pause:
    """Why the rotation cannot go on by itself now, and what makes it go on."""

    step: Step
    why: str
    cure: str


class Ports(Protocol):
    """What the rotation does to the world. Every call may be repeated."""

    def present_keys(self) -> Mapping[Role, str]:
        """Return the fingerprints of the keys in use."""

    def new_keys(self) -> Mapping[Role, str] | None:
        """Make the new keys if this host makes them, and return their fingerprints; None: somebody must bring them."""

    def volumes(self) -> Mapping[str, tuple[Role, Volume]]:
        """Return each declared volume with the role of the key that opens it."""

    def enrol(self, device: str, role: Role) -> None:
        """Add a slot for the new key of a role."""

    def wipe(self, device: str, slot: int) -> None:
        """Remove a slot, and the token that names it."""

    def forget(self, device: str, token: int) -> None:
        """Remove a token whose slot is gone already."""

    def sign_images(self) -> str | None:
        """Sign every image on the ESP with all keys; return why that cannot be done now, None when they all are."""

    def boot_id(self) -> str:
        """Return the identity of this boot."""

    def unproven(self) -> str | None:
        """Return why the new keys have not proved themselves in this boot, None when they have."""

    def promote(self) -> None:
        """Make the new keys the keys, and destroy the old private ones."""


class Rotation:
    """One rotation, by its journal file. The caller holds the host's lock."""

    def __init__(self, path: Path, ports: Ports) -> None:
        self.path, self.ports = path, ports

    def start(self) -> None:
        """Begin; nothing is changed yet but the journal. Raises RotationError when it would not be safe, or has begun.

        Safe means: each sealed volume opens with a present key, and has a recovery key.
        """
        if self.path.exists():
            raise RotationError(
                "a rotation has begun already", where=str(self.path), cure="go on: kosmos-boot rotate-key"
            )
        old = dict(self.ports.present_keys())
        for device, (role, volume) in self.ports.volumes().items():
            if volume.tokens and old[role] not in volume.fingerprints:
                raise RotationError("the present key is not enrolled", where=device, cure="apply host_storage first")
            self._recoverable(device, volume)
        self._write(Journal(Step.KEYS, old))

    def advance(self) -> Pause | None:
        """Go on until it is done (None) or something else must happen first.

        Raises RotationError when no rotation has begun, and whatever a port raises; then run it again.
        """
        while True:
            journal = read(self.path)
            if journal is None:
                raise RotationError("no rotation has begun", cure="begin one: kosmos-boot rotate-key --start")
            if journal.step is Step.DONE:
                self.path.unlink()
                durable.sync_folder(self.path.parent)
                return None
            outcome = getattr(self, f"_{journal.step.value}")(journal)
            if isinstance(outcome, Pause):
                return outcome
            self._write(replace(outcome, step=journal.step.following))

    # -- the steps: each returns the journal for the next one, or why it must wait -----------------------------------
    def _keys(self, journal: Journal) -> Journal | Pause:
        new = self.ports.new_keys()
        if new is None:
            return Pause(
                Step.KEYS, "the new public keys are not here", "bring them as initrd.next.pub and all.next.pub"
            )
        if set(new) != set(Role) or set(new.values()) & set(journal.old.values()):
            raise RotationError("the new keys are not new", cure="make another pair for each role")
        slots = {device: volume.slots for device, (_, volume) in self.ports.volumes().items()}
        return replace(journal, new=dict(new), slots=slots)

    def _enrol(self, journal: Journal) -> Journal | Pause:
        for device, (role, volume) in self.ports.volumes().items():
            if not volume.tokens or journal.new[role] in volume.fingerprints:
                continue
            for slot in set(volume.orphans) - set(journal.slots.get(device, ())):
                self.ports.wipe(device, slot)  # a cut between adding the slot and naming it in a token
            self.ports.enrol(device, role)
        return journal

    def _images(self, journal: Journal) -> Journal | Pause:
        why = self.ports.sign_images()
        if why is not None:
            return Pause(Step.IMAGES, why, "sign the request on the controller, then: rotate-key --signatures FILE")
        return replace(journal, boot_id=self.ports.boot_id())

    def _restart(self, journal: Journal) -> Journal | Pause:
        if self.ports.boot_id() == journal.boot_id:
            return Pause(Step.RESTART, "the host has not restarted since", "restart it: systemctl reboot")
        return journal

    def _prove(self, journal: Journal) -> Journal | Pause:
        why = self.ports.unproven()
        return journal if why is None else Pause(Step.PROVE, why, "the old keys stay until this is mended")

    def _wipe(self, journal: Journal) -> Journal | Pause:
        for device, (role, volume) in self.ports.volumes().items():
            old = [token for token in volume.tokens if token.fingerprint in journal.old.values()]
            if not old:
                continue
            if journal.new[role] not in volume.fingerprints:
                raise RotationError("the new key is not enrolled any more", where=device, cure="look with luksDump")
            self._recoverable(device, volume)
            for token in old:
                for slot in token.slots:
                    self.ports.wipe(device, slot)
                if not token.slots:
                    self.ports.forget(device, token.number)
        return journal

    def _finish(self, journal: Journal) -> Journal | Pause:
        self.ports.promote()
        return journal

    @staticmethod
    def _recoverable(device: str, volume: Volume) -> None:
        if volume.tokens and not volume.recovery_slots:
            raise RotationError(
                "there is no recovery key", where=device, why="a lost TPM key would lock the owner out",
                cure=f"systemd-cryptenroll --recovery-key {device}",
            )  # fmt: skip

    def _write(self, journal: Journal) -> None:
        durable.replace(self.path, journal.render())
