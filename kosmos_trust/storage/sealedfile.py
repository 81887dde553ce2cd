"""The format of a sealed file: two header slots, then the body in chunks. Version 1; all numbers are big-endian.

    0      slot A, 512 bytes                 a slot, in this order (bytes):
    4096   slot B, 512 bytes                   8 magic, 1 version, 1 log2 of the chunk size, 8 root identifier,
    8192   chunk 0, chunk 1, ...              16 file identifier, 8 sequence, 4 epoch, 8 began, 32 salt,
                                              64 agent (padded with zeros), 12 nonce, 48 wrapped file key, zeros

The file key is random, for this file only, and wrapped with AES-256-GCM under the agent's key; everything before the
nonce is authenticated with it (AAD), so agent, file identifier and version cannot be exchanged. Re-wrapping writes the
slot that is not in use, flushes it, and then destroys the other: the body stays, and at each moment one slot is whole.

The body is STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): chunk i is sealed with AES-256-GCM under the nonce
`7 zero bytes, 4 bytes of i, 1 byte that is 1 in the last chunk only`. The key is used for one body only, so a counter
is enough. A chunk that is changed, moved, left out, repeated, or appended is refused, and so is a body cut short.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .agentkey import SALT_BYTES, Epoch, wrapping_key
from .errors import KeyFileError
from .rootkey import IDENTIFIER_BYTES, Root

MAGIC, VERSION = b"KOSMOSDK", 1
SLOT_BYTES, SLOTS, BODY_AT = 512, (0, 4096), 8192
CHUNK_LOG2, TAG_BYTES, NONCE_BYTES, FILE_KEY_BYTES, FILE_ID_BYTES = 16, 16, 12, 32, 16
CHUNK_LOG2_ALLOWED = range(12, 21)
MAX_CHUNKS = 2**32
_FIXED = struct.Struct(f">8sBB{IDENTIFIER_BYTES}s{FILE_ID_BYTES}sQIQ{SALT_BYTES}s64s")
_WRAPPED = FILE_KEY_BYTES + TAG_BYTES


@dataclass(frozen=True)
class Header:
    """What a slot says in clear."""

    agent: str
    root: bytes
    epoch: Epoch
    file_id: bytes
    sequence: int = 1
    chunk_log2: int = CHUNK_LOG2

    @property
    def chunk_bytes(self) -> int:
        """Plain bytes in each chunk but the last."""
        return 1 << self.chunk_log2

    def packed(self) -> bytes:
        """Return the authenticated part of the slot."""
        return _FIXED.pack(
            MAGIC, VERSION, self.chunk_log2, self.root, self.file_id, self.sequence,
            self.epoch.number, self.epoch.began, self.epoch.salt, self.agent.encode(),
        )  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """A slot as it was read: where it lies, its header, nonce and wrapped file key. Nothing is verified yet."""

    offset: int
    header: Header
    nonce: bytes
    wrapped: bytes


def new_header(agent: str, root: Root, epoch: Epoch) -> Header:
    """Return the header of a new file."""
    return Header(agent, root.identifier, epoch, secrets.token_bytes(FILE_ID_BYTES))


def wrap(header: Header, root: Root, file_key: bytes) -> bytes:
    """Return the bytes of a slot."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    key = AESGCM(wrapping_key(root, header.agent, header.epoch))
    return (header.packed() + nonce + key.encrypt(nonce, file_key, header.packed())).ljust(SLOT_BYTES, b"\0")


def parse(raw: bytes, offset: int) -> Slot | None:
    """Return a slot, None when these bytes are none (zeros, or torn by a cut). Nothing is trusted by this."""
    if len(raw) != SLOT_BYTES or raw[:8] != MAGIC or raw[8] != VERSION:
        return None
    _, _, chunk_log2, root, file_id, sequence, number, began, salt, agent = _FIXED.unpack_from(raw)
    at = _FIXED.size
    rest = at + NONCE_BYTES + _WRAPPED
    if chunk_log2 not in CHUNK_LOG2_ALLOWED or any(raw[rest:]):
        return None
    try:
        name = agent.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return None
    header = Header(name, root, Epoch(number, began, salt), file_id, sequence, chunk_log2)
    return Slot(offset, header, raw[at : at + NONCE_BYTES], raw[at + NONCE_BYTES : rest])


def read_slots(stream: BinaryIO) -> list[Slot]:
    """Return the slots of a file, the newest first."""
    found = []
    for offset in SLOTS:
        stream.seek(offset)
        slot = parse(stream.read(SLOT_BYTES), offset)
        if slot is not None:
            found.append(slot)
    return sorted(found, key=lambda slot: slot.header.sequence, reverse=True)


def unwrap(slot: Slot, root: Root) -> bytes | None:
    """Return the file key, None when the slot does not verify under this root."""
    try:
        key = AESGCM(wrapping_key(root, slot.header.agent, slot.header.epoch))
        return key.decrypt(slot.nonce, slot.wrapped, slot.header.packed())
    except (InvalidTag, KeyFileError):
        return None


def find_key(stream: BinaryIO, root: Root, agent: str, where: str) -> tuple[Slot, bytes]:
    """Return the newest slot that verifies, and the file key. Raises KeyFileError, with the reason, without one."""
    slots = read_slots(stream)
    for slot in slots:
        if slot.header.agent == agent and slot.header.root == root.identifier:
            key = unwrap(slot, root)
            if key is not None:
                return slot, key
    if not slots:
        why = "it has no header: it is no sealed file, or its key was destroyed"
    elif all(slot.header.root != root.identifier for slot in slots):
        why = f"it hangs on the root key {slots[0].header.root.hex()}, this is {root.identifier.hex()}"
    elif all(slot.header.agent != agent for slot in slots):
        why = f"it belongs to {slots[0].header.agent!r}, not to {agent!r}"
    else:
        why = "its header was changed"
    raise KeyFileError("the file cannot be opened", where=where, why=why, cure="restore it from the backup")


def rewrapped(slot: Slot, epoch: Epoch) -> Header:
    """Return the header that follows a slot in a later epoch."""
    return replace(slot.header, epoch=epoch, sequence=slot.header.sequence + 1)


def seal_body(source: BinaryIO, target: BinaryIO, header: Header, file_key: bytes) -> int:
    """Write the chunks of a body, in bounded memory; return the number of plain bytes."""
    key, total, size = AESGCM(file_key), 0, header.chunk_bytes
    chunk = _read(source, size)
    for number in range(MAX_CHUNKS):
        following = _read(source, size)
        target.write(key.encrypt(_nonce(number, last=not following), chunk, _body_aad(header)))
        total += len(chunk)
        if not following:
            return total
        chunk = following
    raise KeyFileError(f"more than {MAX_CHUNKS * size} bytes", cure="divide the file")


def open_body(source: BinaryIO, header: Header, file_key: bytes, where: str) -> Iterator[bytes]:
    """Yield the plain chunks, each verified. That nothing is missing is known only when the iterator has ended."""
    key, size = AESGCM(file_key), header.chunk_bytes + TAG_BYTES
    chunk = _read(source, size)
    for number in range(MAX_CHUNKS):
        following = _read(source, size)
        try:
            yield key.decrypt(_nonce(number, last=not following), chunk, _body_aad(header))
        except InvalidTag:
            raise KeyFileError(
                f"chunk {number} was changed, moved or cut off", where=where, cure="restore the file from the backup"
            ) from None
        if not following:
            return
        chunk = following
    raise KeyFileError("the body is longer than the format allows", where=where)


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes(7) + struct.pack(">IB", number, last)


def _body_aad(header: Header) -> bytes:
    """What a body is bound to: the parts of the header that re-wrapping never changes."""
    return MAGIC + bytes((VERSION, header.chunk_log2)) + header.file_id + header.agent.encode()


def _read(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: a pipe may give less at a time."""
    parts = []
    while size:
        part = source.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
