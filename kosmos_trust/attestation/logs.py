"""What was measured at boot: the firmware's, systemd's and IMA's logs as one list, replayed, and told in words.

A log is only a claim. Its digests become facts when their replay gives the quoted PCR values; its texts become facts
only where the digest is that of the text (`proved`). Nothing is ever decided on an unproved text.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..eventlog import (
    EV_NO_ACTION,
    REPLAYED_BANKS,
    Event,
    EventLogError,
    parse_firmware_log,
    parse_ima_log,
    parse_systemd_log,
    replay,
)
from .refusal import Refused
from .words import PCRS, describe, ima_text, text_of

#: What one verdict may cost: an honest firmware log has 10 to 60 KiB, an IMA list is as long as its policy makes it.
MAX_BYTES = {"firmware": 2**20, "systemd": 2**20, "IMA": 2 * 2**20}
#: UEFI 2.10, 3.3: the variable's name and EFI_GLOBAL_VARIABLE
SECURE_BOOT = ("SecureBoot", bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c"))
#: Digests, in every bank, of "no error" (two spellings) and of "error".
SEPARATORS = frozenset(
    hashlib.new(bank, data).digest() for bank in REPLAYED_BANKS for data in (bytes(4), b"\xff\xff\xff\xff", b"\1\0\0\0")
)
#: PFP 3.3.4.5: what is in PCR 4 besides programs: firmware's remarks on its own attempts, and "no error".
REMARKS = frozenset(
    {
        b"Calling EFI Application from Boot Option",
        b"Returning from EFI Application from Boot Option",
        bytes(4),
        b"\xff\xff\xff\xff",
    }
)
PCR_BOOT_LOADER, PCR_SECURE_BOOT = 4, 7


@dataclass(frozen=True)
class Measured:
    """One event, its log ("firmware", "systemd" or "IMA") and its place in it, counted from 1."""

    log: str
    number: int
    event: Event

    @cached_property
    def proved(self) -> bool:
        """Whether the event's text is what was measured: each digest is that of the text."""
        digests = self.event.digests
        return bool(digests) and all(
            hashlib.new(name, self.event.data).digest() == value for name, value in digests.items()
        )

    @property
    def separates(self) -> bool:
        """Whether the event is a separator (PFP 3.3.2.2) in any bank, told by its digest and not by its type."""
        return any(value in SEPARATORS for value in self.event.digests.values())

    @cached_property
    def words(self) -> str:
        """One sentence for people: which PCR, what it stands for, what the log says was measured (see `proved`)."""
        meaning = PCRS.get(self.event.pcr, "unused")
        what = text_of(self.event.data) if self.log == "systemd" else describe(self.event.type, self.event.data)
        if self.log == "IMA":
            what = f"file {ima_text(self.event.data)}"
        return f"{self.log} event {self.number}, PCR {self.event.pcr} ({meaning}): {what or 'text not recorded'}"


@dataclass(frozen=True)
class MeasuredBoot:
    """All events of one boot, in the order in which each PCR was extended."""

    events: tuple[Measured, ...]

    def replay(self, bank: str) -> dict[int, bytes]:
        """Return the values of PCR 0-23 that the events explain in one bank. Raises Refused."""
        try:
            return replay((entry.event for entry in self.events), bank)
        except EventLogError as error:
            raise Refused("log.replay", str(error)) from error

    def of(self, pcr: int) -> list[Measured]:
        """Return the events that extended one PCR."""
        return [entry for entry in self.events if entry.event.pcr == pcr and entry.event.type != EV_NO_ACTION]

    @cached_property
    def secure_boot(self) -> bool:
        """Whether the firmware measured that Secure Boot is on: before PCR 7's separator, proved, and never off.

        After the separator anything that runs may extend PCR 7, so what stands there proves nothing. The type of an
        event is a claim that no digest covers: variable and separator are told by what was measured.
        """
        found: list[bytes] = []
        for entry in self.of(PCR_SECURE_BOOT):
            if entry.separates:
                return bool(found) and all(value == b"\x01" for value in found)
            variable = parse_variable(entry.event.data) if entry.proved else None
            if variable is not None and variable[:2] == SECURE_BOOT:
                found.append(variable[2])
        return False

    def programs(self) -> list[Measured]:
        """Return the programs that were started, in order (boot loader, UKI, kernel).

        That is everything in PCR 4 but separators and firmware's own remarks, told by their digests: a program under
        another event type is still a program.
        """
        return [entry for entry in self.of(PCR_BOOT_LOADER) if not (entry.proved and entry.event.data in REMARKS)]


def parse_logs(firmware: bytes, systemd: bytes, ima: bytes, banks: Sequence[str]) -> MeasuredBoot:
    """Return all events of one boot with their digests in `banks`; no systemd or IMA log is an empty one.

    Only digests of quoted banks are kept: no replay ever proves the others. Raises Refused when the firmware log is
    missing, or a log is malformed.
    """
    if not firmware:
        raise Refused("log.missing", "firmware log: is empty; the firmware handed none over, or it was not sent")
    for name, data in (("firmware", firmware), ("systemd", systemd), ("IMA", ima)):
        if len(data) > MAX_BYTES[name]:
            raise Refused("log.malformed", f"{name} log: {len(data)} bytes, more than {MAX_BYTES[name]}")
    try:
        logs: Mapping[str, list[Event]] = {
            "firmware": parse_firmware_log(firmware),
            "systemd": parse_systemd_log(systemd.decode("utf-8")),
            "IMA": parse_ima_log(ima, banks),
        }
    except (EventLogError, UnicodeDecodeError) as error:
        raise Refused("log.malformed", str(error)) from error
    return MeasuredBoot(
        tuple(
            Measured(log, number, _in_banks(event, banks))
            for log, events in logs.items()
            for number, event in enumerate(events, 1)
        )
    )


def _in_banks(event: Event, banks: Sequence[str]) -> Event:
    digests = {bank: event.digests[bank] for bank in banks if bank in event.digests}
    return Event(event.pcr, event.type, digests, event.data)


def parse_variable(data: bytes) -> tuple[str, bytes, bytes] | None:
    """Return name, vendor GUID and content of a UEFI_VARIABLE_DATA (PFP 10.2.6), None where it is none."""
    if len(data) < 32:
        return None
    name_size, content_size = struct.unpack("<QQ", data[16:32])
    if len(data) != 32 + 2 * name_size + content_size:
        return None
    try:
        name = data[32 : 32 + 2 * name_size].decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return name, data[:16], data[32 + 2 * name_size :]
