"""MakeCredential: a secret that only the TPM with this EK can read, and only while it holds the named key.

TCG "Trusted Platform Module Library", part 1, revision 1.59: section 24 (credential protection), 11.4.10 (KDFa, KDFe),
annex B.10.4 (RSA secret sharing) and C.6.4 (ECC). The TPM side is TPM2_ActivateCredential (part 3, 12.5).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from .quote import HASHES, require_attributes
from .refusal import Refused
from .structures import DECRYPT, RESIDENT, SIGN, Public

try:  # newer versions of cryptography keep it here; Debian 13's 43 does not
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB

LABEL = b"IDENTITY\0"
SECRET_BYTES = 32
FILE_HEADER = struct.pack(">II", 0xBADCC0DE, 1)  # tpm2-tools' own format: magic and version


@dataclass(frozen=True)
class Credential:
    """What goes to the TPM: the contents of TPM2B_ID_OBJECT and of TPM2B_ENCRYPTED_SECRET."""

    identity: bytes
    encrypted_secret: bytes

    def to_file(self) -> bytes:
        """Return the bytes that `tpm2_activatecredential -i` reads."""
        return FILE_HEADER + _sized(self.identity) + _sized(self.encrypted_secret)


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def require_endorsement_key(public: Public) -> None:
    """Raise Refused unless the key can be an EK: made in its TPM, bound to it, for decrypting secrets only."""
    require_attributes(public, RESIDENT | DECRYPT, SIGN, "endorsement key", "ek.attributes")
    if not public.symmetric_bits:
        raise Refused("ek.scheme", "endorsement key: has no symmetric cipher to protect a credential with")


def make_credential(ek: Public, name: bytes, secret: bytes) -> Credential:
    """Return a credential for the key with this TPM name, protected for the TPM with this EK.

    Raises Refused when `ek` cannot be an EK, ValueError when the secret is longer than the EK's name hash.
    """
    require_endorsement_key(ek)
    size = hashlib.new(ek.name_hash).digest_size
    if not 0 < len(secret) <= size:
        raise ValueError(f"a credential of {len(secret)} bytes; this EK protects 1 to {size}")
    seed, encrypted = _share_seed(ek, size)
    key = kdfa(ek.name_hash, seed, b"STORAGE", name, b"", bits=ek.symmetric_bits)
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    mac_key = kdfa(ek.name_hash, seed, b"INTEGRITY", b"", b"", bits=size * 8)
    integrity = hmac.digest(mac_key, identity + name, ek.name_hash)
    return Credential(_sized(integrity) + identity, encrypted)


def _share_seed(ek: Public, size: int) -> tuple[bytes, bytes]:
    """Return a fresh seed, and what lets the TPM with this EK find it."""
    if isinstance(ek.key, ec.EllipticCurvePublicKey):
        ours = ec.generate_private_key(ek.key.curve)
        width = (ek.key.curve.key_size + 7) // 8
        point, theirs = ours.public_key().public_numbers(), ek.key.public_numbers()
        x, y = point.x.to_bytes(width, "big"), point.y.to_bytes(width, "big")
        shared = ours.exchange(ec.ECDH(), ek.key)
        seed = kdfe(ek.name_hash, shared, LABEL, x, theirs.x.to_bytes(width, "big"), bits=size * 8)
        return seed, _sized(x) + _sized(y)
    seed, algorithm = os.urandom(size), HASHES[ek.name_hash]
    return seed, ek.key.encrypt(seed, padding.OAEP(padding.MGF1(algorithm), algorithm, LABEL))


def kdfa(hash_name: str, key: bytes, label: bytes, context_u: bytes, context_v: bytes, *, bits: int) -> bytes:
    """Return key material by KDFa (11.4.10.2): SP 800-108 in counter mode over HMAC. `bits` is a multiple of 8."""
    made, counter = b"", 0
    while len(made) < bits // 8:
        counter += 1
        message = struct.pack(">I", counter) + label + b"\0" + context_u + context_v + struct.pack(">I", bits)
        made += hmac.digest(key, message, hash_name)
    return made[: bits // 8]


def kdfe(hash_name: str, shared: bytes, label: bytes, party_u: bytes, party_v: bytes, *, bits: int) -> bytes:
    """Return key material by KDFe (11.4.10.3): SP 800-56A. `label` ends with its zero; `bits` is a multiple of 8."""
    made, counter = b"", 0
    while len(made) < bits // 8:
        counter += 1
        made += hashlib.new(hash_name, struct.pack(">I", counter) + shared + label + party_u + party_v).digest()
    return made[: bits // 8]
