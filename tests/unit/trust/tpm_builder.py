"""Builds TPM structures byte by byte, and signs them with keys in software: what no TPM would ever sign, tests must."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

BANK_IDS = {"sha1": 4, "sha256": 0xB, "sha384": 0xC}
AK_ATTRIBUTES = 0x00050072  # what tpm2_createak makes: fixed, made here, userWithAuth, restricted, sign
EK_ATTRIBUTES = 0x000300B2
CURVES = {"P-256": (ec.SECP256R1(), 3, 32, "sha256"), "P-384": (ec.SECP384R1(), 4, 48, "sha384")}
CLOCK = (1000, 5, 0, 1)


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


@dataclass
class SoftKey:
    """A key that pretends to be in a TPM."""

    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    hash_name: str
    public: bytes

    def sign(self, data: bytes) -> bytes:
        algorithm = hashes.SHA256() if self.hash_name == "sha256" else hashes.SHA384()
        number = struct.pack(">H", BANK_IDS[self.hash_name])
        if isinstance(self.private, rsa.RSAPrivateKey):
            return b"\x00\x14" + number + sized(self.private.sign(data, padding.PKCS1v15(), algorithm))
        r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(algorithm)))
        width = self.private.curve.key_size // 8
        return b"\x00\x18" + number + sized(r.to_bytes(width, "big")) + sized(s.to_bytes(width, "big"))


def ecc_key(curve: str = "P-384", attributes: int = AK_ATTRIBUTES, scheme: bytes | None = None) -> SoftKey:
    kind, number, width, hash_name = CURVES[curve]
    private = ec.generate_private_key(kind)
    point = private.public_key().public_numbers()
    scheme = b"\x00\x18" + struct.pack(">H", BANK_IDS[hash_name]) if scheme is None else scheme
    public = struct.pack(">HHI", 0x23, 0xB, attributes) + sized(b"") + b"\x00\x10" + scheme
    public += (
        struct.pack(">HH", number, 0x10) + sized(point.x.to_bytes(width, "big")) + sized(point.y.to_bytes(width, "big"))
    )
    return SoftKey(private, hash_name, public)


def rsa_key(attributes: int = AK_ATTRIBUTES, *, decrypting: bool = False) -> SoftKey:
    private = rsa.generate_private_key(65537, 2048)
    modulus = private.public_key().public_numbers().n.to_bytes(256, "big")
    middle = b"\x00\x06\x00\x80\x00\x43\x00\x10" if decrypting else b"\x00\x10\x00\x14\x00\x0b"
    public = (
        struct.pack(">HHI", 1, 0xB, attributes) + sized(b"") + middle + struct.pack(">HI", 2048, 0) + sized(modulus)
    )
    return SoftKey(private, "sha256", public)


def selection_bytes(selection: Mapping[str, Sequence[int]]) -> bytes:
    packed = struct.pack(">I", len(selection))
    for bank, pcrs in selection.items():
        packed += struct.pack(">HB", BANK_IDS[bank], 3) + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    return packed


def attest(
    nonce: bytes,
    values: Mapping[str, Mapping[int, bytes]],
    hash_name: str = "sha384",
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    signer: bytes = b"signer",
    clock: tuple[int, int, int, int] = CLOCK,
    digest: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    whole = b"".join(value for pcrs in values.values() for value in pcrs.values())
    digest = hashlib.new(hash_name, whole).digest() if digest is None else digest
    packed = struct.pack(">IH", magic, kind) + sized(signer) + sized(nonce) + struct.pack(">QIIB", *clock)
    packed += struct.pack(">Q", 0x2024) + selection_bytes({bank: list(pcrs) for bank, pcrs in values.items()})
    return packed + sized(digest) + tail
