"""The escrow file: secrets that other data depends on (keys of databases, passphrases). Made once, before that data.

Law: a secret is stored and synced before anybody gets it, and it is never made anew while something exists that was
made with it. Then, and when the file is damaged, the escrow stops with the recovery text instead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import PkiError, RecoveryNeededError, StoreError
from .store import exclusive, make_folder, read_file, write_file

VERSION = 1
ENTRY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
MIN_BYTES = 16


@dataclass(frozen=True)
class Secret:
    """A secret that does not show itself: `reveal()` is the only way to its bytes."""

    name: str
    _value: bytes = field(repr=False)

    def reveal(self) -> bytes:
        """Return the bytes."""
        return self._value

    def text(self) -> str:
        """Return them as URL-safe base64 without padding: what fits into a configuration file."""
        return base64.urlsafe_b64encode(self._value).rstrip(b"=").decode()


def _digest(entries: dict[str, dict[str, str]]) -> str:
    """Return the checksum of the file's content. It finds damage, not an attacker: who may write here is root."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


@dataclass
class Escrow:
    """One escrow file. `random` gives secret bytes, `clock` aware datetimes."""

    path: Path
    random: Callable[[int], bytes]
    clock: Callable[[], datetime]

    def ensure(self, name: str, needed_by: Iterable[Path] = (), size: int = 32) -> tuple[Secret, bool]:
        """Return the secret, and whether it was made now.

        :param needed_by: data made with this secret; with one of them there, a missing secret is never made anew.
        :param size: bytes of a new secret, at least 16.
        Raises RecoveryNeededError, StoreError.
        """
        if not ENTRY.fullmatch(name) or size < MIN_BYTES:
            raise PkiError(
                f"escrow entry {name[:64]!r} of {size} bytes: a short plain name and at least {MIN_BYTES} bytes"
            )
        make_folder(self.path.parent)
        with exclusive(self.path.with_name(f".{self.path.name}.lock")):
            entries = self._read(needed_by)
            if name in entries:
                return self._secret(name, entries), False
            self._refuse(f"{self.path}: has no entry '{name}'", name, needed_by)
            value = base64.b64encode(self.random(size)).decode()
            entries[name] = {"created": self.clock().isoformat(), "value": value}
            self._write(entries)
            # Read back: what the disk did not keep must not be used to encrypt anything.
            return self._secret(name, self._read(())), True

    def names(self) -> list[str]:
        """Return the names of the entries. Raises StoreError for a damaged file."""
        return sorted(self._read(()))

    def data(self) -> bytes:
        """Return the whole file, for the encrypted backup; empty where there is none. Raises StoreError."""
        return read_file(self.path) if self._read(()) else b""

    def restore(self, data: bytes) -> None:
        """Put a backed-up file in place. Raises StoreError when one is there, or when the data is damaged."""
        entries = self._parse(data)
        make_folder(self.path.parent)
        with exclusive(self.path.with_name(f".{self.path.name}.lock")):
            if self.path.exists() and self._read(()) != entries:
                raise StoreError(
                    f"{self.path}: another escrow is there; move it away before a restore, do not delete it"
                )
            self._write(entries)

    # -- the file ------------------------------------------------------------------------------------------------
    def _secret(self, name: str, entries: dict[str, dict[str, str]]) -> Secret:
        return Secret(name, base64.b64decode(entries[name]["value"], validate=True))

    def _refuse(self, what: str, name: str, needed_by: Iterable[Path]) -> None:
        there = [str(path) for path in needed_by if path.exists()]
        if there:
            raise RecoveryNeededError(
                f"{what}, but {there[0]} was made with it and cannot be read with a new one. Nothing was changed. "
                "Restore the escrow from the backup (a file *.age and its passphrase, kept off this machine). Only if "
                f"the data may be lost: move away {', '.join(there)}, then run again (entry '{name}' is then made anew)"
            )

    def _read(self, needed_by: Iterable[Path]) -> dict[str, dict[str, str]]:
        if not self.path.exists():
            self._refuse(f"{self.path}: is gone", "all", needed_by)
            return {}
        return self._parse(read_file(self.path))

    def _parse(self, data: bytes) -> dict[str, dict[str, str]]:
        cure = "restore it from the backup; nothing was changed"
        try:
            content: dict[str, Any] = json.loads(data)
            version, entries = content["version"], content["entries"]
            sound = content["sha256"] == _digest(entries)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path}: damaged ({type(error).__name__}); {cure}") from None
        if version != VERSION:
            raise StoreError(f"{self.path}: version {version!r}, this program knows {VERSION}; use the newer program")
        if not sound:
            raise StoreError(f"{self.path}: damaged (its checksum does not match); {cure}")
        return dict(entries)

    def _write(self, entries: dict[str, dict[str, str]]) -> None:
        content = {"version": VERSION, "sha256": _digest(entries), "entries": entries}
        write_file(self.path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
