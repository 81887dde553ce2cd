"""What a LUKS token of systemd 257 is bound to: our signing key (TPM2_PolicyAuthorize), then literal PCRs.

With it a token is not believed when it names our key: its policy must be the one that our key and zeros give.
Structures: TCG TPM 2.0 Library, part 2, sections 12.2.4 (TPMT_PUBLIC) and 8.3 (attributes); part 3, section 23.16.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from .prediction import UNLOCK_BANK, policy_pcr
from .roles import Role

#: Literal PCRs beside the signed one. 12 is zero unless somebody extends the command line from outside; 15 is zero
#: until the system has introduced itself, which only the initrd is early enough for.
LITERAL_PCRS = {Role.INITRD: (12, 15), Role.ALL: (12,)}
ZERO_PCRS = frozenset(pcr for pcrs in LITERAL_PCRS.values() for pcr in pcrs)
CC_POLICY_AUTHORIZE = 0x0000016A
ALG_RSA, ALG_SHA256, ALG_NULL = 0x0001, 0x000B, 0x0010
#: decrypt, sign, userWithAuth: what systemd gives a key that it makes from PEM (tpm2-util.c).
ATTRIBUTES = 0x00060040


def key_name(key: RSAPublicKey) -> bytes:
    """Return the Name of a public key as the TPM forms it when systemd loads it: algorithm and SHA-256 of its area."""
    numbers = key.public_numbers()
    modulus = numbers.n.to_bytes(key.key_size // 8, "big")
    area = struct.pack(">HHIH", ALG_RSA, ALG_SHA256, ATTRIBUTES, 0)
    area += struct.pack(">HHHI", ALG_NULL, ALG_NULL, key.key_size, numbers.e)
    area += struct.pack(">H", len(modulus)) + modulus
    return struct.pack(">H", ALG_SHA256) + hashlib.sha256(area).digest()


def sealing_policy(key: RSAPublicKey, zero_pcrs: Iterable[int]) -> bytes:
    """Return the policy digest of what is sealed to `key` and to these PCRs being zero (in the bank that unlocks)."""
    authorized = hashlib.sha256(bytes(32) + struct.pack(">I", CC_POLICY_AUTHORIZE) + key_name(key)).digest()
    policy = hashlib.sha256(authorized).digest()  # the policy reference is empty
    values = dict.fromkeys(zero_pcrs, bytes(32))
    return policy_pcr(values, UNLOCK_BANK, policy) if values else policy
