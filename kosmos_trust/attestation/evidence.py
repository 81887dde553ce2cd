"""What a host sends to be judged: one quote, the PCR values behind it, and the logs that explain them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from . import document
from .document import Hex


@dataclass(frozen=True)
class Evidence:
    """A TPMS_ATTEST, its TPMT_SIGNATURE, PCR values by bank and number, and three logs.

    The logs are the bytes that the kernel and systemd show; an empty one means that there is none. `attestation_key` is
    the TPM's name of the key that signed. Nothing here is believed before it is proved.
    """

    FORMAT: ClassVar[str] = "kosmos.evidence/v1"

    host: str
    attestation_key: Hex
    attest: bytes
    signature: bytes
    values: Mapping[str, Mapping[int, Hex]]
    firmware_log: bytes
    systemd_log: bytes = b""
    ima_log: bytes = b""


def parse_evidence(data: bytes) -> Evidence:
    """Read evidence as it came over the wire. Raises Refused."""
    return document.read(Evidence, data, "evidence")
