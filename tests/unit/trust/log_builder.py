"""Builds boot logs byte by byte, independently of the parser under test."""

from __future__ import annotations

import hashlib
import json
import struct

SIZES = {4: 20, 0xB: 32, 0xC: 48}
NAMES = {4: "sha1", 0xB: "sha256", 0xC: "sha384"}
BANKS = (0xB, 0xC)


def header(banks: tuple[int, ...] = BANKS, vendor: bytes = b"") -> bytes:
    body = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(banks))
    body += b"".join(struct.pack("<HH", bank, SIZES[bank]) for bank in banks) + bytes([len(vendor)]) + vendor
    return struct.pack("<II20sI", 0, 3, b"", len(body)) + body


def event(pcr: int, kind: int, data: bytes, measured: bytes | None = None, banks: tuple[int, ...] = BANKS) -> bytes:
    measured = data if measured is None else measured
    packed = struct.pack("<III", pcr, kind, len(banks))
    for bank in banks:
        packed += struct.pack("<H", bank) + hashlib.new(NAMES[bank], measured).digest()
    return packed + struct.pack("<I", len(data)) + data


def ima(pcr: int, template: bytes, *, name: bytes = b"ima-ng", violation: bool = False) -> bytes:
    digest = bytes(20) if violation else hashlib.sha1(template).digest()
    return struct.pack("<I20sI", pcr, digest, len(name)) + name + struct.pack("<I", len(template)) + template


def systemd(pcr: int, text: bytes) -> str:
    digests = [{"hashAlg": name, "digest": hashlib.new(name, text).hexdigest()} for name in ("sha256", "sha384")]
    content = {"string": text.decode(), "eventType": "phase"}
    record = {"pcr": pcr, "digests": digests, "content_type": "systemd", "content": content}
    return "\x1e" + json.dumps(record) + "\n"


def extend(bank: str, value: bytes, *measured: bytes) -> bytes:
    for data in measured:
        value = hashlib.new(bank, value + hashlib.new(bank, data).digest()).digest()
    return value
