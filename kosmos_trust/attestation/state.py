"""What the verifier remembers of a host between two quotes, and what may never go back. Pure functions.

The TPM's counters (part 1, 36): `resetCount` grows at each TPM reset (power cycle) and never shrinks; `restartCount`
grows at each resume and returns to 0 at a reset; `clock` counts milliseconds while powered, over the TPM's whole life.
It is written to memory at least every 2^22 ms, so that after a power cut it may restart that much earlier: the TPM says
so by `safe` = no. TPM2_Clear sets all three to 0, but destroys the attestation key as well: no exception is needed.

The counters are plain only under a key of the endorsement hierarchy; under any other the TPM disguises them (36.7).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from .endorsement import Endorsement
from .policy import Profile
from .refusal import Refused
from .structures import ClockInfo

CLOCK_UPDATE_MILLISECONDS = 2**22


class MarkKind(StrEnum):
    """What a host has once been, and is for ever after."""

    SECURE_BOOT_OFF = "secure-boot-off"
    SOFTWARE_TPM = "software-tpm"
    UNPROVEN_TPM = "unproven-tpm"


@dataclass(frozen=True)
class Mark:
    """A permanent mark: what, when it was seen first, and in words why."""

    kind: MarkKind
    since: datetime
    words: str


@dataclass(frozen=True)
class KnownHost:
    """An enrolled host: its keys as proved by credential activation, who vouches for its TPM, counters and marks.

    `ek_public` and `ak_public` are TPMT_PUBLIC, `ek_certificate` is DER (b"" for none), `clock` is that of the last
    quote that was believed.
    """

    FORMAT: ClassVar[str] = "kosmos.known-host/v1"

    name: str
    profile: Profile
    enrolled: datetime
    endorsement: Endorsement
    ek_public: bytes
    ek_certificate: bytes
    ak_public: bytes
    clock: ClockInfo | None = None
    marks: tuple[Mark, ...] = ()


def marked(marks: tuple[Mark, ...], new: Iterable[Mark]) -> tuple[Mark, ...]:
    """Return the marks with new ones added; a mark that is there already keeps its first date."""
    kinds = {mark.kind for mark in marks}
    return marks + tuple(mark for mark in new if mark.kind not in kinds)


def require_forward(last: ClockInfo | None, now: ClockInfo) -> None:
    """Raise Refused when a TPM's counters went back since the last quote that was believed.

    Then the quote is old, or the TPM's state was rolled back (a software TPM, restored from a snapshot).
    """
    if last is None:
        return
    if now.reset_count < last.reset_count:
        raise _went_back("the TPM's resets", now.reset_count, last.reset_count)
    same_boot = now.reset_count == last.reset_count
    if same_boot and now.restart_count < last.restart_count:
        raise _went_back("the TPM's restarts", now.restart_count, last.restart_count)
    running = same_boot and now.restart_count == last.restart_count
    allowance = 0 if running or now.safe else CLOCK_UPDATE_MILLISECONDS
    if now.clock + allowance < last.clock:
        raise _went_back("the TPM's clock (ms)", now.clock, last.clock - allowance)


def _went_back(what: str, found: int, least: int) -> Refused:
    words = f"{what} went back: an old quote, or a TPM restored from a copy; if that was wanted, enrol the host again"
    return Refused("clock", words, found=str(found), expected=f"{least} or more")


def after_quote(known: KnownHost, clock: ClockInfo) -> KnownHost:
    """Return what is known after a quote that was believed."""
    return replace(known, clock=clock)


def with_marks(known: KnownHost, new: Iterable[Mark]) -> KnownHost:
    """Return the host with permanent marks added."""
    return replace(known, marks=marked(known.marks, new))
