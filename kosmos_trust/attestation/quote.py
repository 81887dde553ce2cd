"""Believe a quote, or say why not: who signed it, for which nonce, over which PCR values."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from .refusal import Refused
from .structures import (
    ALG_ECDSA,
    ALG_RSASSA,
    ATTRIBUTES,
    DECRYPT,
    RESIDENT,
    SIGN,
    Public,
    Quote,
    parse_quote,
    parse_signature,
)

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
#: bank name -> PCR numbers, and bank name -> PCR number -> value
Selection = Mapping[str, Sequence[int]]
Values = Mapping[str, Mapping[int, bytes]]


def require_attributes(public: Public, needed: int, forbidden: int, what: str, code: str) -> None:
    """Raise Refused when a key lacks one of the needed attributes, or has a forbidden one."""
    missing = [name for bit, name in ATTRIBUTES.items() if needed & bit and not public.attributes & bit]
    excess = [name for bit, name in ATTRIBUTES.items() if forbidden & public.attributes & bit]
    if missing or excess:
        faults = [*(f"is not {name}" for name in missing), *(f"is {name}" for name in excess)]
        raise Refused(code, f"{what}: {', '.join(faults)}", found=f"0x{public.attributes:08x}")


def require_attestation_key(public: Public) -> None:
    """Raise Refused unless the key signs only what its TPM made, and never leaves it.

    `restricted` is what makes a quote a quote: such a key refuses to sign foreign data that begins with TPM_GENERATED.
    """
    require_attributes(public, RESIDENT | SIGN, DECRYPT, "attestation key", "ak.attributes")
    if public.scheme[0] not in (ALG_ECDSA, ALG_RSASSA):
        raise Refused("ak.scheme", "attestation key: has no signing scheme; a restricted key needs ECDSA or RSASSA")


def verify_quote(
    attest: bytes, signature: bytes, key: Public, *, nonce: bytes, selection: Selection, values: Values
) -> Quote:
    """Return the quote (TPMS_ATTEST) once all of it is proved. Raises Refused with the first thing that is not.

    `signature` is a TPMT_SIGNATURE by `key` over `attest`; `selection` is what was asked for, exactly;
    `values` are the PCR values that the quote's digest must come from. Nothing in `attest` is read before the
    signature holds.
    """
    require_attestation_key(key)
    _verify_signature(attest, signature, key)
    quote = parse_quote(attest)
    if not nonce or not hmac.compare_digest(quote.nonce, nonce):
        raise Refused(
            "quote.nonce",
            "quote: was made for another nonce: a replay, or an answer to somebody else",
            found=quote.nonce.hex(),
            expected=nonce.hex(),
        )
    wanted = {bank: tuple(sorted(pcrs)) for bank, pcrs in selection.items()}
    if dict(quote.selection) != wanted:
        raise Refused(
            "quote.selection",
            "quote: covers other PCRs than were asked for",
            found=_told(dict(quote.selection)),
            expected=_told(wanted),
        )
    _require_values(quote, values, key.scheme[1])
    return quote


def _told(selection: Selection) -> str:
    return "+".join(f"{bank}:{','.join(map(str, pcrs))}" for bank, pcrs in sorted(selection.items()))


def _verify_signature(attest: bytes, signature: bytes, key: Public) -> None:
    parsed = parse_signature(signature)
    if (parsed.algorithm, parsed.hash_name) != key.scheme:
        raise Refused("quote.signature", "quote: signed with another scheme than its attestation key has")
    algorithm = HASHES[parsed.hash_name]
    try:
        if isinstance(key.key, ec.EllipticCurvePublicKey):
            if parsed.algorithm != ALG_ECDSA:
                raise Refused("quote.signature", "quote: an elliptic curve key with an RSA scheme")
            r, s = (int.from_bytes(part, "big") for part in parsed.parts)
            key.key.verify(utils.encode_dss_signature(r, s), attest, ec.ECDSA(algorithm))
        elif parsed.algorithm == ALG_RSASSA:
            key.key.verify(parsed.parts[0], attest, padding.PKCS1v15(), algorithm)
        else:
            raise Refused("quote.signature", "quote: an RSA key with an elliptic curve scheme")
    except InvalidSignature as error:
        raise Refused("quote.signature", "quote: the signature is not by this key over this quote") from error


def _require_values(quote: Quote, values: Values, hash_name: str) -> None:
    """Part 3, 18.4: the digest is over the values in the order of the selection, with the signing scheme's hash."""
    whole = hashlib.new(hash_name)
    for bank, pcrs in quote.selection:
        if sorted(values.get(bank, {})) != list(pcrs):
            raise Refused("quote.values", f"PCR values: bank {bank} does not come with exactly the quoted PCRs")
        for pcr in pcrs:
            whole.update(values[bank][pcr])
    if set(values) != {bank for bank, _ in quote.selection}:
        raise Refused("quote.values", "PCR values: a bank that was not quoted")
    if not hmac.compare_digest(whole.digest(), quote.digest):
        raise Refused(
            "quote.digest",
            "PCR values: are not those that the TPM quoted",
            found=whole.hexdigest(),
            expected=quote.digest.hex(),
        )
