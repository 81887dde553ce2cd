"""The PCR policy signatures of an image: the JSON of its section `.pcrsig`, as systemd-measure(1) writes it.

Per bank a list of objects: `pcrs` (numbers), `pkfp` (SHA-256 of the signer's PKCS#1 public key), `pol` (the policy
digest), `sig` (PKCS#1 v1.5 over the digest, hashed with the bank's algorithm).

RSA only: systemd 257 hands each signature to the TPM as RSASSA with SHA-256 (tpm2-util.c), whatever the key is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .errors import SignatureError
from .prediction import BANKS, PCR

MAX_BYTES = 1 << 20
MAX_ENTRIES = 256
#: Every TPM 2.0 has RSA-2048 (PC Client Platform TPM Profile); few have more.
KEY_BITS = 2048
_HASHES: dict[str, hashes.HashAlgorithm] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}


@dataclass(frozen=True)
class Entry:
    """One signed policy: bank, PCR numbers, the signer's fingerprint (hexadecimal), policy digest, signature."""

    bank: str
    pcrs: tuple[int, ...]
    fingerprint: str
    policy: bytes
    signature: bytes


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """Return systemd's `pkfp`: hexadecimal SHA-256 of the key as PKCS#1 RSAPublicKey in DER."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return hashlib.sha256(der).hexdigest()


def load_public(pem: bytes, where: str) -> rsa.RSAPublicKey:
    """Return a public key from PEM. Raises SignatureError when it is not an RSA key of 2048 bits."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("this is no public key in PEM", where=where, why=str(error).splitlines()[0]) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != KEY_BITS:
        raise SignatureError(
            "this key cannot sign PCR policies",
            where=where,
            why=f"systemd 257 and every TPM verify RSA of {KEY_BITS} bits, and this is another kind",
            cure=f"make one with: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{KEY_BITS}",
        )
    return key


def to_pem(key: rsa.RSAPublicKey) -> bytes:
    """Return a public key as PEM, the form in which tokens and images carry it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def parse(text: bytes, where: str) -> tuple[Entry, ...]:
    """Return the entries of a `.pcrsig` section. Raises SignatureError when it is not what systemd-measure writes."""

    def fail(why: str) -> SignatureError:
        return SignatureError("the PCR signatures cannot be read", where=where, why=why, cure="build the image again")

    if len(text) > MAX_BYTES:
        raise fail(f"{len(text)} bytes, more than {MAX_BYTES}")
    try:
        content = json.loads(text.rstrip(b"\0"))
        if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
            raise fail("not an object with one list per bank")
        if sum(map(len, content.values())) > MAX_ENTRIES:
            raise fail(f"more than {MAX_ENTRIES} entries")
        return tuple(
            Entry(
                str(bank),
                tuple(_pcr(number) for number in one["pcrs"]),
                bytes.fromhex(one["pkfp"]).hex(),
                bytes.fromhex(one["pol"]),
                base64.b64decode(one["sig"], validate=True),
            )
            for bank, entries in content.items()
            for one in entries
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise fail(f"{type(error).__name__}: {error}") from None


def _pcr(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 24:
        raise ValueError(f"PCR {number!r} does not exist")
    return number


def render(entries: Iterable[Entry]) -> bytes:
    """Return the JSON of `entries`, in their order, each once; the same bytes for the same entries."""
    content: dict[str, list[dict[str, object]]] = {}
    for one in dict.fromkeys(entries):
        content.setdefault(one.bank, []).append(
            {
                "pcrs": list(one.pcrs),
                "pkfp": one.fingerprint,
                "pol": one.policy.hex(),
                "sig": base64.b64encode(one.signature).decode(),
            }
        )
    return json.dumps(content).encode()


def sign(policy: bytes, bank: str, key: rsa.RSAPrivateKey) -> Entry:
    """Return the entry for a policy digest of PCR 11. The bank must be sha256 or sha384."""
    signature = key.sign(policy, padding.PKCS1v15(), _HASHES[bank])
    return Entry(bank, (PCR,), fingerprint(key.public_key()), policy, signature)


def verify(entry: Entry, key: rsa.RSAPublicKey) -> bool:
    """Tell whether `key` made the entry's signature; an entry of a bank that we do not use is not valid."""
    if entry.bank not in BANKS or entry.fingerprint != fingerprint(key):
        return False
    try:
        key.verify(entry.signature, entry.policy, padding.PKCS1v15(), _HASHES[entry.bank])
    except InvalidSignature:
        return False
    return True
