"""TPM 2.0 structures that the verifier reads: public areas, signatures and quotes. Strict, and bounded.

Byte layouts: TCG "Trusted Platform Module Library", part 2, revision 1.59; section numbers stand at each structure.
Nothing may be left over behind a structure, and nothing unknown is skipped: what cannot be judged is refused.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..eventlog import ALGORITHMS, PCR_COUNT
from .refusal import Refused

MAX_BYTES = 4096  # the largest response of a TPM (TPM2_PT_MAX_RESPONSE_SIZE) bounds everything that came out of it
ALG_RSA, ALG_NULL, ALG_AES, ALG_CFB = 0x0001, 0x0010, 0x0006, 0x0043
ALG_RSASSA, ALG_ECDSA, ALG_ECC = 0x0014, 0x0018, 0x0023
HASHES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}  # SHA-1 neither names nor signs anything here
CURVES: dict[int, tuple[ec.EllipticCurve, int]] = {3: (ec.SECP256R1(), 32), 4: (ec.SECP384R1(), 48)}
RSA_BITS = (2048, 3072, 4096)
RSA_EXPONENT = 65537

# Part 2, 8.3.2: TPMA_OBJECT
FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, USER_WITH_AUTH = 1 << 1, 1 << 4, 1 << 5, 1 << 6
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
ATTRIBUTES = {
    FIXED_TPM: "fixedTPM",
    FIXED_PARENT: "fixedParent",
    SENSITIVE_DATA_ORIGIN: "sensitiveDataOrigin",
    RESTRICTED: "restricted",
    DECRYPT: "decrypt",
    SIGN: "sign",
}
RESIDENT = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED

GENERATED, ATTEST_QUOTE = 0xFF544347, 0x8018  # 6.2 TPM_GENERATED, 6.9 TPM_ST
ENDORSEMENT = struct.pack(">I", 0x4000000B)  # 7.4 TPM_RH_ENDORSEMENT: the name of a permanent handle is the handle

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class _Reader:
    """Bounded reads of big-endian fields from one structure."""

    def __init__(self, data: bytes, what: str) -> None:
        if len(data) > MAX_BYTES:
            raise Refused("structure.size", f"{what}: {len(data)} bytes, a TPM answers at most {MAX_BYTES}")
        self.data, self.what, self.position = data, what, 0

    def fail(self, words: str) -> Refused:
        return Refused("structure.malformed", f"{self.what}: at byte {self.position}: {words}")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            raise self.fail(f"{size} bytes announced, {len(self.data) - self.position} left")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> int:
        value: int = struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))[0]
        return value

    def sized(self) -> bytes:
        """Read a TPM2B: two bytes of size, then so many bytes."""
        return self.take(self.number("H"))

    def hash_name(self) -> str:
        algorithm = self.number("H")
        if algorithm not in HASHES:
            raise self.fail(f"hash 0x{algorithm:04x} is not one of {', '.join(HASHES.values())}")
        return HASHES[algorithm]

    def end(self) -> None:
        if self.position != len(self.data):
            raise self.fail(f"{len(self.data) - self.position} bytes too many")


def unwrap(data: bytes, what: str) -> bytes:
    """Return the content of a TPM2B that is nothing else. Raises Refused."""
    reader = _Reader(data, what)
    content = reader.sized()
    reader.end()
    return content


@dataclass(frozen=True)
class Public:
    """TPMT_PUBLIC (12.2.4) of an RSA or ECC key; `symmetric_bits` is its AES-CFB key size, 0 for a signing key.

    `scheme` is (algorithm, hash name), (ALG_NULL, "") for none; `name` is the TPM's name of the key (16).
    """

    raw: bytes
    kind: int
    name_hash: str
    attributes: int
    policy: bytes
    symmetric_bits: int
    scheme: tuple[int, str]
    key: PublicKey
    name: bytes

    def qualified_name(self, parent: bytes = ENDORSEMENT) -> bytes:
        """Return the qualified name (part 1, 16.3) under the qualified name of a parent or hierarchy."""
        return self.name[:2] + hashlib.new(self.name_hash, parent + self.name).digest()


def parse_public(data: bytes, what: str = "public area") -> Public:
    """Read a TPMT_PUBLIC. Raises Refused when it is malformed, or a key that the verifier cannot judge."""
    reader = _Reader(data, what)
    kind = reader.number("H")
    if kind not in (ALG_RSA, ALG_ECC):
        raise reader.fail(f"key type 0x{kind:04x} is neither RSA nor ECC")
    name_algorithm = data[2:4]
    name_hash, attributes, policy = reader.hash_name(), reader.number("I"), reader.sized()
    symmetric_bits = _symmetric(reader)
    algorithm = reader.number("H")
    if algorithm not in (ALG_NULL, ALG_RSASSA, ALG_ECDSA):
        raise reader.fail(f"scheme 0x{algorithm:04x} is neither RSASSA nor ECDSA")
    scheme = (algorithm, "" if algorithm == ALG_NULL else reader.hash_name())
    key = _rsa(reader) if kind == ALG_RSA else _ecc(reader)
    reader.end()
    name = name_algorithm + hashlib.new(name_hash, data).digest()
    return Public(data, kind, name_hash, attributes, policy, symmetric_bits, scheme, key, name)


def _symmetric(reader: _Reader) -> int:
    algorithm = reader.number("H")
    if algorithm == ALG_NULL:
        return 0
    bits, mode = reader.number("H"), reader.number("H")
    if algorithm != ALG_AES or mode != ALG_CFB or bits not in (128, 192, 256):
        raise reader.fail(f"symmetric 0x{algorithm:04x}, {bits} bits, mode 0x{mode:04x}: expected AES in CFB mode")
    return bits


def _rsa(reader: _Reader) -> rsa.RSAPublicKey:
    bits, exponent = reader.number("H"), reader.number("I") or RSA_EXPONENT  # 12.2.3.5: 0 stands for 2^16 + 1
    modulus = reader.sized()
    if bits not in RSA_BITS or len(modulus) * 8 != bits or modulus[0] < 0x80 or not modulus[-1] & 1:
        raise reader.fail(f"an RSA modulus of {len(modulus)} bytes for a key of {bits} bits")
    if exponent != RSA_EXPONENT:
        raise reader.fail(f"RSA exponent {exponent}, expected {RSA_EXPONENT}")
    return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()


def _ecc(reader: _Reader) -> ec.EllipticCurvePublicKey:
    number, derivation = reader.number("H"), reader.number("H")
    if number not in CURVES:
        raise reader.fail(f"curve 0x{number:04x} is neither P-256 nor P-384")
    if derivation != ALG_NULL:
        raise reader.fail(f"key derivation scheme 0x{derivation:04x}, expected none")
    curve, size = CURVES[number]
    x, y = reader.sized(), reader.sized()
    if max(len(x), len(y)) > size:
        raise reader.fail(f"coordinates of {len(x)} and {len(y)} bytes on {curve.name}")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise reader.fail(f"the point is not on {curve.name}") from error


@dataclass(frozen=True)
class Signature:
    """TPMT_SIGNATURE (11.3.4): the algorithm, the hash name, and (r, s) for ECDSA or (signature,) for RSASSA."""

    algorithm: int
    hash_name: str
    parts: tuple[bytes, ...]


def parse_signature(data: bytes) -> Signature:
    """Read an ECDSA or RSASSA signature. Raises Refused."""
    reader = _Reader(data, "signature")
    algorithm = reader.number("H")
    if algorithm not in (ALG_ECDSA, ALG_RSASSA):
        raise reader.fail(f"algorithm 0x{algorithm:04x} is neither RSASSA nor ECDSA")
    hash_name = reader.hash_name()
    parts = tuple(reader.sized() for _ in range(2 if algorithm == ALG_ECDSA else 1))
    reader.end()
    return Signature(algorithm, hash_name, parts)


@dataclass(frozen=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (10.11.1): milliseconds while powered, TPM resets, TPM restarts; `safe`: see state.py."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True)
class Quote:
    """TPMS_ATTEST (10.12.12) of type TPM_ST_ATTEST_QUOTE; the selection in the order in which it was digested."""

    signer: bytes
    nonce: bytes
    clock: ClockInfo
    firmware: int
    selection: tuple[tuple[str, tuple[int, ...]], ...]
    digest: bytes


def parse_quote(data: bytes) -> Quote:
    """Read a quote. Raises Refused when the magic or the type is another one, or on any malformed field."""
    reader = _Reader(data, "quote")
    if (magic := reader.number("I")) != GENERATED:
        raise Refused("quote.magic", f"quote: does not begin with TPM_GENERATED but with 0x{magic:08x}")
    if (kind := reader.number("H")) != ATTEST_QUOTE:
        raise Refused("quote.type", f"quote: attests 0x{kind:04x}, not a quote (0x{ATTEST_QUOTE:04x})")
    signer, nonce = reader.sized(), reader.sized()
    clock, resets, restarts, safe = reader.number("Q"), reader.number("I"), reader.number("I"), reader.number("B")
    if safe > 1:
        raise reader.fail(f"`safe` is {safe}, neither yes nor no")
    firmware = reader.number("Q")
    selection = _selection(reader)
    digest = reader.sized()
    reader.end()
    return Quote(signer, nonce, ClockInfo(clock, resets, restarts, bool(safe)), firmware, selection, digest)


def _selection(reader: _Reader) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Read TPML_PCR_SELECTION (10.9.7)."""
    count = reader.number("I")
    if count > len(ALGORITHMS):
        raise reader.fail(f"{count} PCR banks announced, there are {len(ALGORITHMS)}")
    banks: dict[str, tuple[int, ...]] = {}
    for _ in range(count):
        algorithm = reader.number("H")
        name = ALGORITHMS[algorithm][0] if algorithm in ALGORITHMS else ""
        bits = int.from_bytes(reader.take(reader.number("B")), "little")
        if not name or name in banks or bits >> PCR_COUNT:
            raise reader.fail(f"selection of bank 0x{algorithm:04x}: unknown, twice, or beyond PCR {PCR_COUNT - 1}")
        banks[name] = tuple(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)
    return tuple(banks.items())
