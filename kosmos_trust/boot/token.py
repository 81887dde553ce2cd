"""Which keys open a LUKS2 volume: its `systemd-tpm2` tokens, from `cryptsetup luksDump --dump-json-metadata`.

Field names: systemd v257, src/shared/tpm2-util.c, tpm2_make_luks2_json(): older ones with a hyphen, newer with an
underscore. Nothing here is secret: the sealed blob is of use to this TPM only, and it is not kept.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from .errors import SignatureError, TokenError
from .pcrsig import fingerprint, load_public
from .sealing import ZERO_PCRS, sealing_policy

TPM2, RECOVERY = "systemd-tpm2", "systemd-recovery"
MAX_BYTES = 4 << 20  # LUKS2 allows a metadata area of 4 MiB at most


@dataclass(frozen=True)
class Token:
    """One TPM token: number, key slots, literal PCRs, PCRs bound by signature, bank, public key (PEM) and policy."""

    number: int
    slots: tuple[int, ...]
    literal_pcrs: tuple[int, ...]
    signed_pcrs: tuple[int, ...]
    bank: str
    public_key: bytes
    policy: bytes

    @property
    def fingerprint(self) -> str | None:
        """The signer's fingerprint as in `.pcrsig`; None for a token without a key, or with one that cannot sign."""
        key = self._key()
        return fingerprint(key) if key else None

    @property
    def bound(self) -> bool:
        """Whether its policy is what its key and zero PCRs give; with other literal PCRs it cannot be judged: True."""
        key = self._key()
        if key is None or not ZERO_PCRS.issuperset(self.literal_pcrs):
            return True
        return self.policy == sealing_policy(key, self.literal_pcrs)

    def _key(self) -> RSAPublicKey | None:
        try:
            return load_public(self.public_key, "token") if self.public_key else None
        except SignatureError:
            return None


@dataclass(frozen=True)
class Volume:
    """One LUKS2 device: its TPM tokens, all its key slots, and those that hold a recovery key."""

    device: str
    tokens: tuple[Token, ...]
    slots: tuple[int, ...]
    recovery_slots: tuple[int, ...]

    @property
    def fingerprints(self) -> frozenset[str]:
        """The signers that are enrolled."""
        return frozenset(token.fingerprint for token in self.tokens if token.fingerprint)

    @property
    def orphans(self) -> tuple[int, ...]:
        """The slots that no token names: passphrases, key files, and what a cut enrolment has left."""
        named = {slot for token in self.tokens for slot in token.slots} | set(self.recovery_slots)
        return tuple(slot for slot in self.slots if slot not in named)


def parse(text: str, device: str) -> Volume:
    """Return the volume that the JSON metadata describes. Raises TokenError when it is not LUKS2 metadata."""

    def fail(why: str) -> TokenError:
        return TokenError(
            "the LUKS2 metadata cannot be read", where=device, why=why,
            cure=f"look at it with: cryptsetup luksDump {device}",
        )  # fmt: skip

    if len(text) > MAX_BYTES:
        raise fail(f"more than {MAX_BYTES} characters")
    try:
        content = json.loads(text)
        tokens, slots = content["tokens"], tuple(sorted(map(int, content["keyslots"])))
        recovery = [_numbers(one["keyslots"]) for one in tokens.values() if one["type"] == RECOVERY]
        return Volume(
            device,
            tuple(_token(int(number), one) for number, one in sorted(tokens.items()) if one["type"] == TPM2),
            slots,
            tuple(slot for group in recovery for slot in group),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise fail(f"{type(error).__name__}: {error}") from None


def _token(number: int, one: dict[str, Any]) -> Token:
    return Token(
        number,
        _numbers(one["keyslots"]),
        _numbers(one.get("tpm2-pcrs", [])),
        _numbers(one.get("tpm2_pubkey_pcrs", [])),
        str(one.get("tpm2-pcr-bank", "")),
        base64.b64decode(one.get("tpm2_pubkey", ""), validate=True),
        bytes.fromhex(one.get("tpm2-policy-hash", "")),
    )


def _numbers(values: list[Any]) -> tuple[int, ...]:
    return tuple(sorted(int(value) for value in values))
