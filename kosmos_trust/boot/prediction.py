"""What PCR 11 will hold when an image has started, and the TPM policy that says so.

systemd-stub measures, for each section in a fixed order, its name with a final zero byte and then its content
(systemd v257, src/fundamental/uki.h); systemd-pcrextend adds one word per boot phase (systemd-pcrphase.service(8)).
The policy is TPM2_PolicyPCR over that value (TCG TPM 2.0 Library, part 3, section 23.7), always with SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .pe import Image

PCR = 11
#: The order of measurement, which is not the order of the file. `.pcrsig` is left out: it signs the result.
SECTIONS = (
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey", ".profile",
    ".dtbauto", ".hwids",
)  # fmt: skip
#: Bank name to TCG algorithm identifier.
BANKS: Mapping[str, int] = {"sha256": 0x000B, "sha384": 0x000C}
#: The bank that systemd 257 takes when the TPM has it, and the only one whose signatures it can verify in the TPM.
UNLOCK_BANK = "sha256"
CC_POLICY_PCR = 0x0000017F
INITRD_PATHS = ("enter-initrd",)
ALL_PATHS = (
    "enter-initrd",
    "enter-initrd:leave-initrd",
    "enter-initrd:leave-initrd:sysinit",
    "enter-initrd:leave-initrd:sysinit:ready",
)


@dataclass(frozen=True)
class Measured:
    """One measured section: its name, and the digest of its content in one bank."""

    name: str
    digest: bytes


def measure(image: Image, bank: str = UNLOCK_BANK) -> tuple[Measured, ...]:
    """Return the sections that the stub will measure, in its order; empty ones are not measured."""
    found = []
    for name in SECTIONS:
        content = image.content(name) if name in image.names else b""
        if content:
            found.append(Measured(name, hashlib.new(bank, content).digest()))
    return tuple(found)


def predict(sections: Iterable[Measured], bank: str, path: str) -> bytes:
    """Return PCR 11 in `bank` at the end of a phase path, as `enter-initrd:leave-initrd`; "" is before any phase."""
    value = bytes(hashlib.new(bank).digest_size)
    for section in sections:
        value = _extend(bank, value, hashlib.new(bank, section.name.encode() + b"\0").digest())
        value = _extend(bank, value, section.digest)
    for word in filter(None, path.split(":")):
        value = _extend(bank, value, hashlib.new(bank, word.encode()).digest())
    return value


def _extend(bank: str, value: bytes, digest: bytes) -> bytes:
    return hashlib.new(bank, value + digest).digest()


def policy_pcr(values: Mapping[int, bytes], bank: str, before: bytes = bytes(32)) -> bytes:
    """Return the SHA-256 policy digest after TPM2_PolicyPCR over `values` (PCR number to value), from `before` on."""
    mask = sum(1 << number for number in values)
    selection = struct.pack(">IHB", 1, BANKS[bank], 3) + mask.to_bytes(3, "little")
    content = hashlib.sha256(b"".join(values[number] for number in sorted(values))).digest()
    return hashlib.sha256(before + struct.pack(">I", CC_POLICY_PCR) + selection + content).digest()


def policies(sections: Sequence[Measured], bank: str, paths: Iterable[str]) -> dict[str, bytes]:
    """Return the policy digest by phase path: what a PCR signing key has to sign."""
    return {path: policy_pcr({PCR: predict(sections, bank, path)}, bank) for path in paths}
