"""One wrapping key for each agent: HKDF-SHA256 of the root with a random salt; a new salt every 30 days.

The salt is 32 bytes of the kernel's generator, which the kernel seeds from the processor's, the board's and the TPM's
random sources. It is no secret: it stands in the agent's record and in the header of each file, so a file can be read
with the root key alone.
"""

from __future__ import annotations

import json
import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kosmos_trust.durable import replace

from .errors import KeyFileError
from .rootkey import Root

PERIOD_SECONDS = 30 * 24 * 3600
SALT_BYTES = KEY_BYTES = 32
AGENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
MAX_EPOCH = 2**32 - 1


@dataclass(frozen=True)
class Epoch:
    """One period of an agent's key: its number from 1, when it began (seconds since 1970), and its salt."""

    number: int
    began: int
    salt: bytes

    def due(self, now: float) -> float:
        """Return the seconds left until the next rotation; zero or less means that it is due.

        A clock that was set back before the beginning makes it due as well: the age cannot be known then.
        """
        return self.began + PERIOD_SECONDS - now if now >= self.began else 0.0

    def packed(self) -> bytes:
        """Return the bytes that stand in a file's header."""
        return struct.pack(">IQ", self.number, self.began) + self.salt


@dataclass(frozen=True)
class Record:
    """An agent's current epoch; `rewrapping` while files of earlier ones may still be there."""

    epoch: Epoch
    rewrapping: bool


def checked(agent: str) -> str:
    """Return the name of an agent. Raises KeyFileError for one that is no DNS label: it is a folder's name too."""
    if not AGENT.fullmatch(agent):
        raise KeyFileError(
            f"{agent!r} is not an agent's name", cure="use 1 to 64 letters a-z, digits and hyphens within"
        )
    return agent


def wrapping_key(root: Root, agent: str, epoch: Epoch) -> bytes:
    """Return the key that wraps the agent's file keys: RFC 5869, salt of the epoch, info names agent and purpose."""
    info = f"kosmos/agent/{checked(agent)}/file-key/v1".encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=epoch.salt, info=info).derive(root.key)


def next_epoch(previous: Epoch | None, now: float) -> Epoch:
    """Return a new epoch with a fresh salt."""
    number = previous.number + 1 if previous else 1
    if number > MAX_EPOCH:
        raise KeyFileError(f"more than {MAX_EPOCH} rotations")
    return Epoch(number, int(now), secrets.token_bytes(SALT_BYTES))


def read(path: Path) -> Record | None:
    """Return an agent's record, None when there is none. Raises KeyFileError when it is not readable."""
    try:
        content = json.loads(path.read_text())
        epoch = Epoch(int(content["epoch"]), int(content["began"]), bytes.fromhex(content["salt"]))
        if not 0 < epoch.number <= MAX_EPOCH or len(epoch.salt) != SALT_BYTES or epoch.began < 0:
            raise ValueError("out of range")
        return Record(epoch, bool(content["rewrapping"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyFileError(
            "the record of an agent's key cannot be read", where=str(path), why=type(error).__name__,
            cure="remove it and rotate: the files carry their own salts and stay readable",
        ) from None  # fmt: skip


def write(path: Path, record: Record) -> None:
    """Replace an agent's record at once and durably."""
    epoch = record.epoch
    content = {
        "epoch": epoch.number, "began": epoch.began, "salt": epoch.salt.hex(), "rewrapping": record.rewrapping,
    }  # fmt: skip
    replace(path, json.dumps(content).encode() + b"\n")
