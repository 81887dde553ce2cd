"""Quotes and TPM structures: each thing that is checked, by a structure that is wrong in just that."""

from __future__ import annotations

import struct
import time

import pytest
from attestation_bed import AT, NONCE, Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from tpm_builder import AK_ATTRIBUTES, EK_ATTRIBUTES, SoftKey, attest, ecc_key, rsa_key, sized

from kosmos_trust.attestation import structures
from kosmos_trust.attestation.appraisal import appraise
from kosmos_trust.attestation.credential import kdfa, kdfe, make_credential
from kosmos_trust.attestation.policy import Policy
from kosmos_trust.attestation.quote import require_attestation_key, verify_quote
from kosmos_trust.attestation.refusal import Refused
from kosmos_trust.attestation.state import KnownHost
from kosmos_trust.attestation.structures import parse_public, parse_quote, parse_signature, unwrap

VALUES = {"sha256": {0: b"\1" * 32, 7: b"\2" * 32}, "sha384": {0: b"\3" * 48, 7: b"\4" * 48}}
SELECTION = {"sha256": [0, 7], "sha384": [0, 7]}
P384 = ecc_key()


def verify(key: SoftKey, message: bytes, signature: bytes | None = None, **changed: object) -> structures.Quote:
    given = {"nonce": NONCE, "selection": SELECTION, "values": VALUES, **changed}
    signature = key.sign(message) if signature is None else signature
    return verify_quote(message, signature, parse_public(key.public), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [P384, ecc_key("P-256"), rsa_key()], ids=["P-384", "P-256", "RSA-2048"])
def test_a_good_quote_is_read_whole(key: SoftKey) -> None:
    quote = verify(key, attest(NONCE, VALUES, key.hash_name))
    assert quote.clock == structures.ClockInfo(1000, 5, 0, True)
    assert (quote.signer, quote.firmware) == (b"signer", 0x2024)
    assert quote.selection == (("sha256", (0, 7)), ("sha384", (0, 7)))


def test_banks_are_digested_in_the_order_of_the_quote() -> None:
    turned = {bank: VALUES[bank] for bank in ("sha384", "sha256")}
    assert verify(P384, attest(NONCE, turned)).selection[0][0] == "sha384"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("quote.magic", attest(NONCE, VALUES, magic=0xFF544348)),
        ("quote.type", attest(NONCE, VALUES, kind=0x8017)),
        ("quote.nonce", attest(NONCE[:-1], VALUES)),
        ("quote.nonce", attest(b"", VALUES)),
        ("quote.selection", attest(NONCE, {"sha256": VALUES["sha256"]})),
        ("quote.selection", attest(NONCE, {**VALUES, "sha256": {0: b"\1" * 32}})),
        ("quote.selection", attest(NONCE, {**VALUES, "sha1": {0: bytes(20)}})),
        ("quote.selection", attest(NONCE, {**VALUES, "sha256": {**VALUES["sha256"], 8: b"\5" * 32}})),
        ("quote.digest", attest(NONCE, VALUES, digest=bytes(48))),
        ("quote.digest", attest(NONCE, VALUES, "sha256")),
        ("structure.malformed", attest(NONCE, VALUES, tail=b"\0")),
        ("structure.malformed", attest(NONCE, VALUES)[:-1]),
        ("structure.malformed", attest(NONCE, VALUES, clock=(0, 0, 0, 2))),
        ("structure.size", attest(NONCE, VALUES, tail=bytes(4096))),
    ],
)
def test_a_signed_quote_that_is_not_what_was_asked_for_is_refused(code: str, message: bytes) -> None:
    with pytest.raises(Refused) as caught:
        verify(P384, message)
    assert caught.value.reason.code == code


@pytest.mark.parametrize(
    "values",
    [
        {**VALUES, "sha1": {0: bytes(20)}},
        {"sha256": VALUES["sha256"]},
        {**VALUES, "sha384": {0: b"\3" * 48}},
        {**VALUES, "sha384": {**VALUES["sha384"], 9: bytes(48)}},
    ],
)
def test_values_that_were_not_quoted_are_refused(values: object) -> None:
    with pytest.raises(Refused) as caught:
        verify(P384, attest(NONCE, VALUES), values=values)
    assert caught.value.reason.code == "quote.values"


def test_an_empty_nonce_is_no_nonce() -> None:
    with pytest.raises(Refused, match="another nonce"):
        verify(P384, attest(b"", VALUES), nonce=b"")


def test_a_signature_has_to_be_by_this_key_and_in_its_scheme() -> None:
    message = attest(NONCE, VALUES)
    with pytest.raises(Refused, match="not by this key"):
        verify(P384, message, ecc_key().sign(message))
    with pytest.raises(Refused, match="another scheme"):
        verify(P384, message, rsa_key().sign(message))
    with pytest.raises(Refused, match="another scheme"):
        verify(P384, message, ecc_key("P-256").sign(message))
    for part in (bytes(48), b"\xff" * 48, b""):
        with pytest.raises(Refused, match="not by this key"):
            verify(P384, message, b"\x00\x18\x00\x0c" + sized(part) + sized(part))


def test_a_curve_with_an_rsa_scheme_is_refused() -> None:
    odd = ecc_key(scheme=b"\x00\x14\x00\x0c")
    with pytest.raises(Refused, match="elliptic curve key with an RSA scheme"):
        verify(odd, attest(NONCE, VALUES), b"\x00\x14\x00\x0c" + sized(bytes(256)))


@pytest.mark.parametrize(
    ("bit", "words"),
    [
        (1 << 1, "is not fixedTPM"),
        (1 << 4, "is not fixedParent"),
        (1 << 5, "is not sensitiveDataOrigin"),
        (1 << 16, "is not restricted"),
        (1 << 17, "is decrypt"),
        (1 << 18, "is not sign"),
    ],
)
def test_each_attribute_of_an_attestation_key_matters(bit: int, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        require_attestation_key(parse_public(ecc_key(attributes=AK_ATTRIBUTES ^ bit).public))
    assert caught.value.reason.code == "ak.attributes"


def test_a_key_that_signs_anything_quotes_nothing() -> None:
    loose = ecc_key(attributes=AK_ATTRIBUTES & ~(1 << 16))
    with pytest.raises(Refused, match="is not restricted"):
        verify(loose, attest(NONCE, VALUES))


def test_a_bank_selected_twice_is_refused() -> None:
    message = attest(NONCE, VALUES)
    start = message.index(b"\0\0\0\x02\x00\x0b\x03")
    twice = message[: start + 10] + message[start + 4 : start + 10] + message[start + 16 :]
    assert len(twice) == len(message)
    with pytest.raises(Refused, match="unknown, twice"):
        verify(P384, twice)


def test_an_attestation_key_needs_a_scheme_and_an_endorsement_key_a_cipher() -> None:
    with pytest.raises(Refused, match="no signing scheme"):
        require_attestation_key(parse_public(ecc_key(scheme=b"\x00\x10").public))
    with pytest.raises(Refused, match="is not decrypt, is sign"):
        make_credential(parse_public(P384.public), b"name", b"secret")
    with pytest.raises(Refused, match="no symmetric cipher"):
        make_credential(parse_public(ecc_key(attributes=EK_ATTRIBUTES, scheme=b"\x00\x10").public), b"name", b"secret")


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_a_credential_has_a_size(secret: bytes) -> None:
    ek = parse_public(rsa_key(EK_ATTRIBUTES, decrypting=True).public)
    with pytest.raises(ValueError, match="protects 1 to 32"):
        make_credential(ek, b"name", secret)


def test_key_derivation_gives_whole_bytes_of_any_length() -> None:
    for derive in (kdfa, kdfe):
        long = derive("sha256", b"key", b"LABEL\0", b"u", b"v", bits=1024)
        assert len(long) == 128
        assert len(derive("sha256", b"key", b"LABEL\0", b"u", b"v", bits=128)) == 16
        assert len({long[:32], long[32:64], long[64:96], long[96:]}) == 4
    assert kdfe("sha256", b"k", b"L\0", b"", b"", bits=256) == kdfe("sha256", b"k", b"L\0", b"", b"", bits=512)[:32]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: b"\x00\x08" + raw[2:], "neither RSA nor ECC"),
        (lambda raw: raw[:2] + b"\x00\x04" + raw[4:], "hash 0x0004"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "not on secp384r1"),
        (lambda raw: raw[:16] + b"\x00\x05" + raw[18:], "curve 0x0005"),
        (lambda raw: raw[:18] + b"\x00\x20" + raw[20:], "key derivation scheme"),
        (lambda raw: raw[:10] + b"\x00\x06\x00\x80\x00\x44" + raw[12:], "expected AES in CFB"),
        (lambda raw: raw[:12] + b"\x00\x1a" + raw[14:], "scheme 0x001a"),
        (lambda raw: raw + b"\0", "1 bytes too many"),
        (lambda raw: raw[:-1], "48 bytes announced"),
        (lambda raw: raw[:16] + b"\x00\x03" + raw[18:], "coordinates of 48 and 48 bytes"),
    ],
)
def test_each_fault_of_a_public_area_is_named(change, words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse_public(change(P384.public))


def test_weak_rsa_keys_are_refused() -> None:
    raw = rsa_key().public
    assert parse_public(raw).key.key_size == 2048
    for changed, words in (
        (raw[:16] + struct.pack(">HI", 1024, 0) + sized(b"\xff" * 128), "RSA modulus of 128 bytes"),
        (raw[:16] + struct.pack(">HI", 2048, 3) + raw[22:], "exponent 3"),
        (raw[:16] + struct.pack(">HI", 2048, 0) + sized(b"\x7f" * 256), "RSA modulus"),
    ):
        with pytest.raises(Refused, match=words):
            parse_public(changed)


def test_every_flipped_bit_of_a_real_quote_is_refused(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    machine, known = box
    evidence = machine.evidence(policy)
    key = parse_public(known.ak_public)
    given = {"nonce": NONCE, "selection": policy.selection, "values": evidence.values}
    assert verify_quote(evidence.attest, evidence.signature, key, **given)
    for name, codes in (
        ("attest", {"quote.signature"}),
        ("signature", {"quote.signature", "structure.malformed"}),
    ):
        for bit in range(8 * len(getattr(evidence, name))):
            parts = {"attest": evidence.attest, "signature": evidence.signature}
            parts[name] = flip(parts[name], bit)
            with pytest.raises(Refused) as caught:
                verify_quote(parts["attest"], parts["signature"], key, **given)
            assert caught.value.reason.code in codes
    for bank, pcrs in evidence.values.items():
        for pcr, value in pcrs.items():
            changed = {**evidence.values, bank: {**pcrs, pcr: flip(value, pcr)}}
            with pytest.raises(Refused) as caught:
                verify_quote(evidence.attest, evidence.signature, key, **{**given, "values": changed})
            assert caught.value.reason.code == "quote.digest"
    for bit in range(8 * len(NONCE)):
        with pytest.raises(Refused) as caught:
            verify_quote(evidence.attest, evidence.signature, key, **{**given, "nonce": flip(NONCE, bit)})
        assert caught.value.reason.code == "quote.nonce"


def test_flipped_and_cut_logs_of_a_real_boot_never_pass(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    """A log may differ only where no digest covers it, and then the verdict must not rest on it."""
    from dataclasses import replace

    machine, known = box
    evidence = machine.evidence(policy)
    honest = appraise(evidence, policy, known, nonce=NONCE, at=AT).verdict
    assert not honest.reasons
    refused = passed = 0
    for name in ("firmware_log", "systemd_log", "ima_log"):
        whole = getattr(evidence, name)
        changes = [flip(whole, bit) for bit in range(3, 8 * len(whole), 37)]
        changes += [whole[:size] for size in range(0, len(whole), 41)]
        for change in changes:
            verdict = appraise(replace(evidence, **{name: change}), policy, known, nonce=NONCE, at=AT).verdict
            if verdict.reasons:
                refused += 1
                assert verdict.result.value == "untrusted"
                assert all(reason.code.startswith(("log.", "image.")) for reason in verdict.reasons), verdict.reasons
            else:
                passed += 1
                assert (verdict.result, verdict.image, verdict.firmware) == (honest.result, "kosmos-1", "firmware 1.0")
    assert refused > passed > 0


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


PARSERS = (parse_public, parse_signature, parse_quote, lambda data: unwrap(data, "blob"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", P384.public, attest(NONCE, VALUES), P384.sign(b"")]), st.data())
def test_noise_never_raises_anything_else(noise: bytes, start: bytes, data: st.DataObject) -> None:
    mixed = start[: data.draw(st.integers(0, len(start)))] + noise
    for parse in PARSERS:
        began = time.monotonic()
        try:
            parse(mixed)
        except Refused as error:
            assert error.reason.words
        assert time.monotonic() - began < 1
