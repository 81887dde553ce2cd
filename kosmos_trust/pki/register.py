"""What an authority has issued and revoked: an append-only, synced file of JSON lines.

An issued certificate is written here before it is handed out, so that nothing exists which cannot be revoked. The last
line may be torn by a power cut (then it never counted); a broken line before it is damage, and stops everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from .authority import key_fingerprint, serial_text
from .errors import PkiError, StoreError
from .store import append_line, exclusive, read_lines

#: RFC 5280 section 5.3.1, without the values that are unused or need a certificateHold to be lifted.
REASONS = {
    flag.value: flag
    for flag in x509.ReasonFlags
    if flag not in (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl)
}


@dataclass(frozen=True)
class Issued:
    """One issued certificate: upper-case hexadecimal serial, subject (RFC 4514), SHA-256 of the public key, end."""

    serial: str
    subject: str
    key: str
    not_after: datetime


@dataclass(frozen=True)
class Revoked:
    """One revocation: serial, time, reason of RFC 5280 by its ASN.1 name."""

    serial: str
    at: datetime
    reason: str


@dataclass
class _Content:
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: dict[str, Revoked] = field(default_factory=dict)


class Register:
    """The register in one file. Every change takes the file's lock; readers need none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _read(self) -> _Content:
        content = _Content()
        for number, line in enumerate(read_lines(self.path), start=1):
            try:
                self._apply(content, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{self.path}: line {number} is damaged ({type(error).__name__}); "
                    "restore the register from a backup"
                ) from error
        return content

    @staticmethod
    def _apply(content: _Content, entry: Mapping[str, Any]) -> None:
        serial = str(entry["serial"])
        if entry["event"] == "issued":
            end = datetime.fromisoformat(entry["not_after"])
            content.issued[serial] = Issued(serial, str(entry["subject"]), str(entry["key"]), end)
        elif entry["event"] == "revoked":
            REASONS[entry["reason"]]
            found = Revoked(serial, datetime.fromisoformat(entry["at"]), str(entry["reason"]))
            content.revoked.setdefault(serial, found)
        else:
            raise ValueError("unknown event")

    def _append(self, entry: Mapping[str, str]) -> None:
        append_line(self.path, json.dumps(entry, sort_keys=True, ensure_ascii=True).encode())

    def issued(self) -> dict[str, Issued]:
        """Return the issued certificates by serial, oldest first. Raises StoreError."""
        return self._read().issued

    def revoked(self) -> dict[str, Revoked]:
        """Return the revocations by serial, oldest first. Raises StoreError."""
        return self._read().revoked

    def keys(self) -> frozenset[str]:
        """Return the fingerprints of all public keys that ever had a certificate."""
        return frozenset(entry.key for entry in self._read().issued.values())

    def note_issued(self, certificate: x509.Certificate) -> None:
        """Write down a certificate before it is handed out. Raises StoreError, PkiError for a serial used twice."""
        serial = serial_text(certificate.serial_number)
        with exclusive(self._lock):
            if serial in self._read().issued:
                raise PkiError(f"{self.path}: serial {serial} was issued before; the source of randomness is broken")
            self._append(
                {
                    "event": "issued",
                    "serial": serial,
                    "subject": certificate.subject.rfc4514_string(),
                    "key": key_fingerprint(certificate.public_key()),
                    "not_after": certificate.not_valid_after_utc.isoformat(),
                }
            )

    def revoke(self, serial: str, reason: str, at: datetime) -> bool:
        """Revoke by serial; return False where that was done before. Raises PkiError for one that is unknown."""
        if reason not in REASONS:
            raise PkiError(f"revocation reason {reason!r}: there are {', '.join(REASONS)}")
        with exclusive(self._lock):
            content = self._read()
            if serial not in content.issued:
                raise PkiError(f"{self.path}: no certificate with serial {serial} was issued here (see `openssl x509`)")
            if serial in content.revoked:
                return False
            self._append({"event": "revoked", "serial": serial, "at": at.astimezone(UTC).isoformat(), "reason": reason})
        return True

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")
