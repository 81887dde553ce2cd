"""Read the logs of what was measured at boot, and replay them to the PCR values they explain.

Three logs together explain PCR 0-23: the firmware's (TCG PC Client Platform Firmware Profile, section 10,
crypto-agile format), systemd's own (`tpm2-measure.log`, RFC 7464 JSON text sequences) and the kernel's IMA list.
Every number in them is untrusted: sizes and counts are bounded, and a log that breaks a bound is an EventLogError.

Standard library only: this module also runs on a stock host, inside an Ansible module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Where Linux and systemd show them, below the root of the file system.
FIRMWARE_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
IMA_LOG = "/sys/kernel/security/ima/binary_runtime_measurements"
SYSTEMD_LOG = "/run/log/systemd/tpm2-measure.log"

EV_NO_ACTION = 0x00000003
#: TCG algorithm registry: identifier to (bank name, digest size in bytes).
ALGORITHMS: Mapping[int, tuple[str, int]] = {
    0x0004: ("sha1", 20),
    0x000B: ("sha256", 32),
    0x000C: ("sha384", 48),
    0x000D: ("sha512", 64),
    0x0012: ("sm3_256", 32),
}
DIGEST_SIZES: Mapping[str, int] = dict(ALGORITHMS.values())
REPLAYED_BANKS = ("sha1", "sha256", "sha384", "sha512")
PCR_COUNT = 24
#: PC Client profile: these start as all ones, until a dynamic launch resets them.
DYNAMIC_PCRS = range(17, 23)

MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_EVENTS = 500_000
MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_ALGORITHMS = 16
SPEC_ID = b"Spec ID Event03\0"
STARTUP_LOCALITY = b"StartupLocality\0"
RECORD_SEPARATOR = "\x1e"
IMA_NAME_BYTES = 256  # the legacy template hashes the file name padded to this


class EventLogError(ValueError):
    """A log is not what its format says. The text names the log, the event and the fault."""


@dataclass(frozen=True)
class Event:
    """One measurement: PCR number, TCG event type, digest by bank name, raw event data."""

    pcr: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes = b""


#: Bytes by struct's letter. A log has hundreds of numbers, and a verifier reads hundreds of logs a second.
WIDTHS = {"B": 1, "H": 2, "I": 4}


class _Reader:
    """Bounded reads of little-endian fields from one log."""

    def __init__(self, data: bytes, log: str) -> None:
        if len(data) > MAX_LOG_BYTES:
            raise EventLogError(f"{log}: {len(data)} bytes, more than {MAX_LOG_BYTES}")
        self.data, self.log, self.position, self.event = data, log, 0, 0

    def fail(self, what: str) -> EventLogError:
        return EventLogError(f"{self.log}: event {self.event} at byte {self.position}: {what}")

    @property
    def left(self) -> bool:
        return self.position < len(self.data)

    def next_event(self) -> None:
        self.event += 1
        if self.event > MAX_EVENTS:
            raise self.fail(f"more than {MAX_EVENTS} events")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            raise self.fail(f"{size} bytes announced, {len(self.data) - self.position} left")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> int:
        return int.from_bytes(self.take(WIDTHS[form]), "little")

    def block(self) -> bytes:
        size = self.number("I")
        if size > MAX_EVENT_BYTES:
            raise self.fail(f"{size} bytes announced, more than {MAX_EVENT_BYTES}")
        return self.take(size)

    def pcr(self, *, no_action: bool = False) -> int:
        value = self.number("I")
        # EV_NO_ACTION may carry 0xFFFFFFFF, it extends nothing.
        if value >= PCR_COUNT and not (no_action or value == 0xFFFFFFFF):
            raise self.fail(f"PCR {value} does not exist")
        return value


def parse_firmware_log(data: bytes) -> list[Event]:
    """Return the events of `binary_bios_measurements`.

    Raises EventLogError when the log is truncated, oversized, not crypto-agile, or names a PCR that does not exist.
    """
    reader = _Reader(data, "firmware log")
    sizes = _spec_id(reader)
    events = []
    while reader.left:
        reader.next_event()
        pcr, kind = reader.pcr(), reader.number("I")
        if pcr >= PCR_COUNT and kind != EV_NO_ACTION:
            raise reader.fail(f"PCR {pcr} does not exist")
        count = reader.number("I")
        if count > len(sizes):
            raise reader.fail(f"{count} digests, the header announced {len(sizes)} algorithms")
        digests: dict[str, bytes] = {}
        for _ in range(count):
            algorithm = reader.number("H")
            if algorithm not in sizes:
                raise reader.fail(f"algorithm 0x{algorithm:04x} is not in the header")
            name = ALGORITHMS[algorithm][0] if algorithm in ALGORITHMS else f"0x{algorithm:04x}"
            if name in digests:
                raise reader.fail(f"two digests for {name}")
            digests[name] = reader.take(sizes[algorithm])
        events.append(Event(pcr, kind, digests, reader.block()))
    return events


def _spec_id(reader: _Reader) -> dict[int, int]:
    """Read the header event (in the old SHA-1 form) and return digest sizes by algorithm identifier."""
    reader.pcr()
    kind = reader.number("I")
    reader.take(20)
    header = _Reader(reader.block(), "firmware log header")
    if kind != EV_NO_ACTION or header.take(min(16, len(header.data))) != SPEC_ID:
        raise EventLogError(
            "firmware log: does not begin with a Spec ID Event03: it is not crypto-agile (TPM 1.2 form?)"
        )
    header.take(8)  # platform class, version, errata, size of a UINTN
    count = header.number("I")
    if not 0 < count <= MAX_ALGORITHMS:
        raise header.fail(f"{count} algorithms, expected 1 to {MAX_ALGORITHMS}")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, size = header.number("H"), header.number("H")
        known = ALGORITHMS.get(algorithm, ("", size))[1]
        if size != known or not 0 < size <= 64 or algorithm in sizes:
            raise header.fail(f"algorithm 0x{algorithm:04x} with digests of {size} bytes")
        sizes[algorithm] = size
    header.take(header.number("B"))  # vendor information
    return sizes


def parse_systemd_log(text: str) -> list[Event]:
    """Return the events of `/run/log/systemd/tpm2-measure.log`; records that measure into NV indices are left out.

    Raises EventLogError on a record that is not the JSON object systemd writes.
    """
    if len(text) > MAX_LOG_BYTES:
        raise EventLogError(f"systemd log: more than {MAX_LOG_BYTES} characters")
    events = []
    for number, record in enumerate(filter(str.strip, text.split(RECORD_SEPARATOR)), start=1):
        try:
            content = json.loads(record)
            if not isinstance(content, dict):
                raise TypeError("not an object")
            if "pcr" not in content:
                continue
            pcr = content["pcr"]
            digests = {str(entry["hashAlg"]): bytes.fromhex(entry["digest"]) for entry in content["digests"]}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise EventLogError(f"systemd log: record {number}: {type(error).__name__}: {error}") from error
        if isinstance(pcr, bool) or not isinstance(pcr, int) or not 0 <= pcr < PCR_COUNT:
            raise EventLogError(f"systemd log: record {number}: PCR {pcr!r} does not exist")
        for name, digest in digests.items():
            if len(digest) != DIGEST_SIZES.get(name, len(digest)):
                raise EventLogError(f"systemd log: record {number}: {name} digest of {len(digest)} bytes")
        events.append(Event(pcr, 0, digests, _systemd_words(content)))
    return events


def _systemd_words(record: Mapping[str, object]) -> bytes:
    """Return the text that systemd measured, b"" where the record does not carry it (a volume key is a secret)."""
    content = record.get("content")
    text = content.get("string") if isinstance(content, dict) else None
    return text.encode("utf-8", "replace") if isinstance(text, str) else b""


def parse_ima_log(data: bytes, banks: Iterable[str] = REPLAYED_BANKS) -> list[Event]:
    """Return the events of IMA's `binary_runtime_measurements` with the digests that the kernel extended.

    The list carries SHA-1 only; the kernel extends each bank with that bank's hash of the template data
    (security/integrity/ima/ima_crypto.c), and all ones for a violation. Raises EventLogError on a broken list.
    """
    reader = _Reader(data, "IMA log")
    wanted = [bank for bank in banks if bank in REPLAYED_BANKS]
    events = []
    while reader.left:
        reader.next_event()
        pcr = reader.number("I")
        if pcr >= PCR_COUNT:
            raise reader.fail(f"PCR {pcr} does not exist")
        recorded = reader.take(20)
        name = reader.block()
        if len(name) > 64:
            raise reader.fail(f"template name of {len(name)} bytes")
        content = _legacy_template(reader) if name == b"ima" else reader.block()
        if recorded == bytes(20):
            digests = {bank: b"\xff" * DIGEST_SIZES[bank] for bank in wanted}
        else:
            digests = {bank: hashlib.new(bank, content).digest() for bank in wanted}
        events.append(Event(pcr, 0, digests, content))
    return events


def _legacy_template(reader: _Reader) -> bytes:
    digest, name = reader.take(20), reader.block()
    if len(name) > IMA_NAME_BYTES:
        raise reader.fail(f"file name of {len(name)} bytes")
    return digest + name.ljust(IMA_NAME_BYTES, b"\0")


def replay(events: Iterable[Event], bank: str) -> dict[int, bytes]:
    """Return the value of PCR 0-23 after the events, in one bank (sha1, sha256, sha384 or sha512).

    EV_NO_ACTION extends nothing, except that a StartupLocality event gives PCR 0 its start value.
    Raises EventLogError for another bank, and for an event that has no digest for it.
    """
    if bank not in REPLAYED_BANKS:
        raise EventLogError(f"bank {bank!r} cannot be replayed; there are: {', '.join(REPLAYED_BANKS)}")
    size = DIGEST_SIZES[bank]
    values = {pcr: (b"\xff" if pcr in DYNAMIC_PCRS else b"\0") * size for pcr in range(PCR_COUNT)}
    extended: set[int] = set()
    for number, event in enumerate(events, start=1):
        if event.type == EV_NO_ACTION:
            if event.pcr == 0 and event.data[:16] == STARTUP_LOCALITY and len(event.data) > 16:
                if 0 in extended:
                    raise EventLogError(f"event {number}: StartupLocality after PCR 0 was extended")
                values[0] = bytes(size - 1) + event.data[16:17]
            continue
        digest = event.digests.get(bank)
        if digest is None:
            raise EventLogError(f"event {number} (PCR {event.pcr}) has no {bank} digest")
        values[event.pcr] = hashlib.new(bank, values[event.pcr] + digest).digest()
        extended.add(event.pcr)
    return values


def mismatches(replayed: Mapping[int, bytes], actual: Mapping[int, bytes]) -> list[int]:
    """Return the PCRs whose value is not the replayed one, ascending; a PCR missing on one side counts."""
    return sorted(pcr for pcr in set(replayed) | set(actual) if replayed.get(pcr) != actual.get(pcr))
