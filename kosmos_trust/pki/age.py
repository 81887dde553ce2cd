"""Encrypt to a passphrase in the age format: what is written here, `age -d` and `rage -d` open without us.

Source: C2SP, age-encryption.org/v1 ("scrypt recipient stanza", "Payload"). scrypt N=2^18, r=8, p=1 costs 256 MiB and
about a second; the payload is ChaCha20-Poly1305 in chunks of 64 KiB, the last one marked, so that a cut is noticed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from .errors import PkiError

VERSION = b"age-encryption.org/v1\n"
SALT_LABEL = b"age-encryption.org/v1/scrypt"
CHUNK, TAG = 64 * 1024, 16
WORK_FACTOR, MAX_WORK_FACTOR = 18, 22  # log2 N; age itself refuses above 22
MIN_PASSPHRASE_CHARACTERS = 20


class BundleError(PkiError):
    """A bundle is damaged, cut, of another format, or the passphrase is wrong."""


def _wrap_key(passphrase: bytes, salt: bytes, work_factor: int) -> bytes:
    return Scrypt(SALT_LABEL + salt, 32, 2**work_factor, 8, 1).derive(passphrase)


def _expand(key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(key)


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    if _encode(data) != text:
        raise BundleError("the bundle's header is damaged: not canonical base64")
    return data


def _nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + bytes([last])


def encrypt(data: bytes, passphrase: bytes, random: Callable[[int], bytes], work_factor: int = WORK_FACTOR) -> bytes:
    """Return the age file. Raises PkiError for a passphrase under 20 characters."""
    if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
        raise PkiError(
            f"the passphrase has {len(passphrase)} characters, at least {MIN_PASSPHRASE_CHARACTERS} are needed"
        )
    file_key, salt = random(16), random(16)
    body = ChaCha20Poly1305(_wrap_key(passphrase, salt, work_factor)).encrypt(bytes(12), file_key, None)
    header = VERSION + b"-> scrypt %s %d\n%s\n---" % (_encode(salt), work_factor, _encode(body))
    mac = hmac.digest(_expand(file_key, None, b"header"), header, "sha256")
    nonce = random(16)
    cipher = ChaCha20Poly1305(_expand(file_key, nonce, b"payload"))
    starts = range(0, max(len(data), 1), CHUNK)
    chunks = (
        cipher.encrypt(_nonce(i, at + CHUNK >= len(data)), data[at : at + CHUNK], None) for i, at in enumerate(starts)
    )
    return header + b" " + _encode(mac) + b"\n" + nonce + b"".join(chunks)


def decrypt(bundle: bytes, passphrase: bytes) -> bytes:
    """Return the content. Raises BundleError; a wrong passphrase and damage of the header's body look the same."""
    try:
        version, stanza, body, tail = bundle.split(b"\n", 3)
        arrow, kind, salt_text, factor_text = stanza.split(b" ")
        mac_line, payload = tail.split(b"\n", 1)
        salt, sealed, factor = _decode(salt_text), _decode(body), int(factor_text)
        mac = _decode(mac_line.removeprefix(b"--- "))
    except (ValueError, binascii.Error):
        raise BundleError("the bundle is damaged, or not an age file for a passphrase") from None
    sound = version + b"\n" == VERSION and (arrow, kind) == (b"->", b"scrypt") and mac_line.startswith(b"--- ")
    if not sound or len(salt) != 16 or not 1 <= factor <= MAX_WORK_FACTOR or factor_text != b"%d" % factor:
        raise BundleError("the bundle is damaged, or not an age file for a passphrase")
    try:
        file_key = ChaCha20Poly1305(_wrap_key(passphrase, salt, factor)).decrypt(bytes(12), sealed, None)
    except (InvalidTag, ValueError):
        raise BundleError("the bundle does not open: wrong passphrase, or damaged") from None
    header = b"\n".join((version, stanza, body, b"---"))
    if len(file_key) != 16 or not hmac.compare_digest(
        mac, hmac.new(_expand(file_key, None, b"header"), header, sha256).digest()
    ):
        raise BundleError("the bundle is damaged: its header was changed")
    return _payload(file_key, payload)


def _payload(file_key: bytes, payload: bytes) -> bytes:
    nonce, rest = payload[:16], payload[16:]
    if len(nonce) != 16 or len(rest) < TAG:
        raise BundleError("the bundle is cut off")
    cipher, out = ChaCha20Poly1305(_expand(file_key, nonce, b"payload")), []
    size = CHUNK + TAG
    for counter, at in enumerate(range(0, len(rest), size)):
        try:
            out.append(cipher.decrypt(_nonce(counter, at + size >= len(rest)), rest[at : at + size], None))
        except InvalidTag:
            raise BundleError("the bundle is damaged or cut off") from None
    if len(out) > 1 and not out[-1]:
        raise BundleError("the bundle is damaged: its last chunk is empty")
    return b"".join(out)
