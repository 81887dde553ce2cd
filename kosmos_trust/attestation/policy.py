"""The policy: which boots we want. One typed JSON document per policy; what it does not know, it refuses.

A host is judged in two halves. Firmware (PCR 0-3 and 7 as a rule) must be in one of the approved states, as literal
values: a state that is not approved yet waits for a person. The image that booted must be one that an update
transaction has announced, by the values and program digests that the transaction computed itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ..eventlog import DIGEST_SIZES, PCR_COUNT
from . import document
from .document import Hex
from .endorsement import Endorsement
from .refusal import Refused

BANKS = ("sha256", "sha384")
MAX_REFERENCES = 4096
PCR_IMAGE, PCR_FROM_OUTSIDE = 11, 12
SUFFIX = ".json"


class Profile(StrEnum):
    """The appliance file's profile. Only `lab` runs without Secure Boot or on a software TPM without a mark."""

    APPLIANCE = "appliance"
    LAB = "lab"


@dataclass(frozen=True)
class Reference:
    """Something measured, in words and as a digest or PCR value in each bank of the policy."""

    words: str
    values: Mapping[str, Hex]


@dataclass(frozen=True)
class State:
    """One accepted value of one PCR. `events`, where given, only serve to name the event that differs."""

    words: str
    values: Mapping[str, Hex]
    events: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Firmware:
    """One approved state of a machine's firmware: every firmware PCR of the policy, together."""

    name: str
    pcrs: Mapping[int, State]


@dataclass(frozen=True)
class Image:
    """One boot image. `launches`: what firmware starts from PCR 4, in order; `pcrs`: accepted states of other PCRs.

    PCR 11 has one state per boot phase that may ask. After `until`, the end of an update's window, it is refused.
    """

    name: str
    pcrs: Mapping[int, tuple[State, ...]]
    launches: tuple[Reference, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True)
class Policy:
    """Everything that a verdict depends on besides the evidence and what is known of the host.

    `banks` and `pcrs` are what has to be quoted, exactly; `endorsement` is who may vouch for the TPM. One that could
    accept unseen, or never accept, cannot be made: the constructor raises Refused.
    """

    FORMAT: ClassVar[str] = "kosmos.attestation/v1"

    name: str
    profile: Profile
    pcrs: tuple[int, ...]
    images: tuple[Image, ...]
    firmware: tuple[Firmware, ...]
    firmware_pcrs: tuple[int, ...] = (0, 1, 2, 3, 7)
    banks: tuple[str, ...] = BANKS
    endorsement: tuple[Endorsement, ...] = (Endorsement.HARDWARE,)

    def __post_init__(self) -> None:
        for where, fault in _faults(self):
            raise Refused("policy", f"policy {self.name}: {where}: {fault}")

    @cached_property
    def digest(self) -> str:
        """Return the SHA-384 of the policy's canonical form; verdicts carry it."""
        return document.digest(self)

    @property
    def selection(self) -> dict[str, tuple[int, ...]]:
        """Return what has to be quoted: PCR numbers by bank."""
        return dict.fromkeys(self.banks, self.pcrs)


def parse_policy(data: bytes, what: str = "policy") -> Policy:
    """Read a policy. Raises Refused that names the path, the fault and what is possible there."""
    return document.read(Policy, data, what)


def load_policy(folder: Path, name: str) -> Policy:
    """Read the policy of this name from a folder of `<name>.json`.

    Raises Refused for a name that is not there (a typing error must never mean "accept"), and when the file's name is
    not the policy's.
    """
    names = sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))
    if name not in names:
        raise Refused("policy.unknown", f"policy {name!r} is not in {folder}; there are: {', '.join(names) or 'none'}")
    policy = parse_policy((folder / f"{name}{SUFFIX}").read_bytes(), f"{name}{SUFFIX}")
    if policy.name != name:
        raise Refused("policy.unknown", f"{name}{SUFFIX}.name: is {policy.name!r}; file and policy share one name")
    return policy


def _faults(policy: Policy) -> Iterable[tuple[str, str]]:
    if not policy.banks or not set(policy.banks) <= set(BANKS) or len(set(policy.banks)) != len(policy.banks):
        yield "banks", f"has to be some of {', '.join(BANKS)}, each once"
    for name, pcrs in (("pcrs", policy.pcrs), ("firmware_pcrs", policy.firmware_pcrs)):
        if not pcrs or list(pcrs) != sorted(set(pcrs)) or pcrs[-1] >= PCR_COUNT:
            yield name, f"has to list PCRs 0 to {PCR_COUNT - 1}, ascending, each once"
    yield from _unquoted(policy, "firmware_pcrs", policy.firmware_pcrs)
    if not policy.images:
        yield "images", "is empty: no boot could ever be trusted"
    names = [image.name for image in policy.images] + [firmware.name for firmware in policy.firmware]
    if len(set(names)) != len(names):
        yield "images", "two entries of images and firmware share one name; verdicts name them, so each needs its own"
    if not policy.endorsement:
        yield "endorsement", "is empty: no TPM could ever be enrolled"
    for number, firmware in enumerate(policy.firmware):
        where = f"firmware[{number}].pcrs"
        if set(firmware.pcrs) != set(policy.firmware_pcrs):
            yield where, f"has to hold exactly the firmware PCRs {', '.join(map(str, policy.firmware_pcrs))}"
        yield from _wrong_sizes(policy, where, firmware.pcrs.values())
    for number, image in enumerate(policy.images):
        yield from _image_faults(policy, f"images[{number}]", image)


def _image_faults(policy: Policy, where: str, image: Image) -> Iterable[tuple[str, str]]:
    if not image.pcrs and not image.launches:
        yield where, "has neither pcrs nor launches: it would accept every boot"
    if PCR_IMAGE in image.pcrs and PCR_FROM_OUTSIDE not in image.pcrs:
        yield f"{where}.pcrs", "has PCR 11 without PCR 12: the command line can be extended with PCR 11 unchanged"
    if overlap := set(image.pcrs) & set(policy.firmware_pcrs):
        yield f"{where}.pcrs", f"PCR {min(overlap)} is judged as firmware already"
    if image.launches:
        yield from _unquoted(policy, f"{where}.launches", (4,))
    yield from _unquoted(policy, f"{where}.pcrs", image.pcrs)
    for pcr, states in image.pcrs.items():
        if not states:
            yield f"{where}.pcrs.{pcr}", "is empty: no boot could ever be trusted"
        yield from _wrong_sizes(policy, f"{where}.pcrs.{pcr}", states)
    yield from _wrong_sizes(policy, f"{where}.launches", image.launches)


def _unquoted(policy: Policy, where: str, pcrs: Iterable[int]) -> Iterable[tuple[str, str]]:
    if missing := set(pcrs) - set(policy.pcrs):
        yield where, f"PCR {min(missing)} is not in pcrs, so it would not be quoted"


def _wrong_sizes(policy: Policy, where: str, entries: Iterable[State | Reference]) -> Iterable[tuple[str, str]]:
    """Every reference needs a value in every bank: judged in one bank only, the other would be accepted unseen."""
    for number, entry in enumerate(entries):
        if number >= MAX_REFERENCES:
            yield where, f"more than {MAX_REFERENCES} references"
            return
        sizes = {bank: len(value) for bank, value in entry.values.items()}
        if sizes != {bank: DIGEST_SIZES[bank] for bank in policy.banks}:
            yield (
                f"{where} ({entry.words})",
                f"needs one value of the right size in each bank: {', '.join(policy.banks)}",
            )
        if isinstance(entry, State):
            yield from _wrong_sizes(policy, f"{where} ({entry.words}).events", entry.events)
