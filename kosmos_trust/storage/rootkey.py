"""The root of all data keys: 32 random bytes on the sealed volume, made once, never again while anything hangs on it.

Two files, the key first: `root.key` (0600) and then `root.json` (its identifier and when it was made). The record
without the key, or sealed files without the key, mean that the key was lost: that is an error, not an occasion to make
a new one. The identifier is derived from the key, and stands in each file that hangs on it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kosmos_trust.durable import private_folder, sync_folder, write_new

from .errors import KeyFileError
from .temporary import is_sealed

KEY_BYTES, IDENTIFIER_BYTES = 32, 8
SUFFIX = ".sealed"


@dataclass(frozen=True)
class Root:
    """The root key. Its representation shows the identifier only."""

    key: bytes
    identifier: bytes

    def __repr__(self) -> str:
        return f"Root({self.identifier.hex()})"

    @classmethod
    def of(cls, key: bytes) -> Root:
        """Return the root with its identifier: HKDF-SHA256 (RFC 5869) of the key, which tells nothing about it."""
        hkdf = HKDF(algorithm=SHA256(), length=IDENTIFIER_BYTES, salt=None, info=b"kosmos/root/identifier/v1")
        return cls(key, hkdf.derive(key))


def load(folder: Path) -> Root:
    """Return the root key of a folder. Raises KeyFileError when it is missing, readable by others, or another one."""
    path = folder / "root.key"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status, key = os.fstat(descriptor), os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(
            "the root key cannot be read", where=str(path), why=error.strerror or "",
            cure="mount the sealed volume; if the file is gone, restore it from the backup: "
            "without it the sealed files cannot be read",
        ) from None  # fmt: skip
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyFileError(
            "others may read the root key", where=str(path), why=f"mode {stat.S_IMODE(status.st_mode):04o}",
            cure="find out who read it; `chmod 0600`, and rotate",
        )  # fmt: skip
    if len(key) != KEY_BYTES:
        raise KeyFileError(
            f"the root key is not {KEY_BYTES} bytes long", where=str(path), cure="restore it from the backup"
        )
    root = Root.of(key)
    recorded = _recorded(folder)
    if recorded not in (None, root.identifier.hex()):
        raise KeyFileError(
            "this is another root key than the one that was made here", where=str(path),
            why=f"identifier {root.identifier.hex()}, recorded {recorded}", cure="restore the right one",
        )  # fmt: skip
    return root


def load_or_make(folder: Path, data: Path, clock: Callable[[], float], *, sealed_only: bool = True) -> Root:
    """Return the root key; make it when neither it, nor its record, nor a sealed file below `data` is there.

    Raises KeyFileError also when it would be made outside a sealed volume, unless `sealed_only` is False.
    """
    path = folder / "root.key"
    if not path.exists():
        orphan = next(data.rglob(f"*{SUFFIX}"), None) if data.is_dir() else None
        if _recorded(folder) is not None or orphan is not None:
            raise KeyFileError(
                "the root key is gone, and data hangs on it", where=str(path),
                why=f"{orphan or folder / 'root.json'} exists",
                cure="restore root.key from the backup; a new key would not open what is there",
            )  # fmt: skip
        private_folder(folder)
        if sealed_only and not is_sealed(folder):
            raise KeyFileError(
                "the root key would lie on a disk in clear", where=str(path),
                cure="mount the sealed volume there first (`kosmos_trust.storage status`)",
            )  # fmt: skip
        write_new(path, secrets.token_bytes(KEY_BYTES))
        sync_folder(folder)
    root = load(folder)
    if _recorded(folder) is None:
        record = {"identifier": root.identifier.hex(), "made": int(clock())}
        write_new(folder / "root.json", json.dumps(record).encode() + b"\n")
        sync_folder(folder)
    return root


def _recorded(folder: Path) -> str | None:
    """Return the recorded identifier; None without a record, or with one that a cut has left incomplete."""
    try:
        return str(json.loads((folder / "root.json").read_text())["identifier"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise KeyFileError(
            "the record of the root key cannot be read", where=str(folder / "root.json"),
            cure="if root.key is there, remove this record: it is written again from the key",
        ) from None  # fmt: skip
