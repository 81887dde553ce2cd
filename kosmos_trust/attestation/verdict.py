"""The verdict on one host at one time: the result, every reason for it, and what it was computed from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .document import Hex
from .refusal import Reason
from .state import Mark
from .structures import ClockInfo


class Result(StrEnum):
    """From good to bad. CHANGED_FIRMWARE waits for a person; DEGRADED is for ever."""

    TRUSTED = "trusted"
    DEGRADED = "degraded"
    CHANGED_FIRMWARE = "changed-firmware"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True)
class Verdict:
    """Result and reasons; `image` and `firmware` name the matching references; None where it did not come so far.

    `attestation_key` is the TPM's name of the AK, `policy_digest` the SHA-384 of the policy, `tpm_firmware` the TPM's
    own firmware version as it reports it. `marks` are carried whatever the result.
    """

    FORMAT: ClassVar[str] = "kosmos.verdict/v1"

    host: str
    result: Result
    at: datetime
    nonce: Hex
    attestation_key: Hex
    policy: str
    policy_digest: str
    reasons: tuple[Reason, ...] = ()
    marks: tuple[Mark, ...] = ()
    image: str | None = None
    firmware: str | None = None
    secure_boot: bool | None = None
    clock: ClockInfo | None = None
    tpm_firmware: int | None = None
