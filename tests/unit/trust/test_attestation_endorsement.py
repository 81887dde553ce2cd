"""EK certificates: real ones of swtpm, and made ones that are wrong in one thing each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attestation_bed import AT, Machine, authority, policy_for, uki_boot
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st
from tpm_builder import EK_ATTRIBUTES, SoftKey, rsa_key

from kosmos_trust.attestation.chain import MAX_DEPTH, Anchors, load_anchors
from kosmos_trust.attestation.endorsement import Endorsement, judge_endorsement
from kosmos_trust.attestation.enrolment import Claim, challenge
from kosmos_trust.attestation.refusal import Refused
from kosmos_trust.attestation.state import KnownHost
from kosmos_trust.attestation.structures import parse_public

Extensions = Sequence[tuple[Any, bool]]

EK = rsa_key(EK_ATTRIBUTES, decrypting=True)
EK_USAGE = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.1")])
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usage(**true: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: true.get(name, False) for name in USAGES})


CA_EXTENSIONS: Extensions = (
    (x509.BasicConstraints(True, None), True),
    (usage(key_cert_sign=True), True),
)


def tpm_name(model: str = "SLB 9672") -> x509.SubjectAlternativeName:
    attributes = {"2.23.133.2.1": "id:49465800", "2.23.133.2.2": model, "2.23.133.2.3": "id:1"}
    rdn = [x509.NameAttribute(ObjectIdentifier(oid), value) for oid, value in attributes.items()]
    return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(rdn))])


def ek_extensions(**changed: tuple[Any, bool] | None) -> Extensions:
    usual: dict[str, tuple[Any, bool] | None] = {
        "name": (tpm_name(), True),
        "usage": (usage(key_encipherment=True), True),
        "extended": (EK_USAGE, False),
        "basic": (x509.BasicConstraints(False, None), True),
    }
    return [entry for entry in {**usual, **changed}.values() if entry]


@dataclass
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(self, key: Any, name: str = "", extensions: Extensions = (), **more: Any) -> x509.Certificate:
        return build(key, name, self.certificate.subject, self.key, extensions=extensions or CA_EXTENSIONS, **more)


def build(
    key: Any,
    name: str,
    issuer: x509.Name,
    signer: Any,
    *,
    extensions: Extensions,
    start: datetime = START,
    end: datetime = END,
    algorithm: Any = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), start, end)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, algorithm or hashes.SHA256())


def root(name: str = "maker root", extensions: Extensions = CA_EXTENSIONS, **more: Any) -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return Authority(build(key.public_key(), name, subject, key, extensions=extensions, **more), key)


def below(above: Authority, name: str, extensions: Extensions = CA_EXTENSIONS, **more: Any) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(above.issue(key.public_key(), name, extensions, **more), key)


ROOT = root()
ISSUER = below(ROOT, "maker issuer")
ANCHORS = Anchors(hardware=(ROOT.certificate,), intermediates=(ISSUER.certificate,))


def judged(certificate: x509.Certificate | bytes, anchors: Anchors = ANCHORS, key: SoftKey = EK) -> Endorsement:
    data = certificate if isinstance(certificate, bytes) else certificate.public_bytes(Encoding.DER)
    return judge_endorsement(data, parse_public(key.public), anchors, AT)


def ek_certificate(issuer: Authority = ISSUER, **more: Any) -> x509.Certificate:
    return issuer.issue(EK.private.public_key(), extensions=ek_extensions(), **more)


def test_a_manufacturers_certificate_is_hardware() -> None:
    assert judged(ek_certificate()) is Endorsement.HARDWARE
    assert judged(ek_certificate(ROOT)) is Endorsement.HARDWARE
    assert judged(b"") is Endorsement.ABSENT


@pytest.mark.parametrize("filling", [b"\0" * 200, b"\xff" * 200])
def test_filling_behind_the_certificate_is_cut(filling: bytes) -> None:
    assert judged(ek_certificate().public_bytes(Encoding.DER) + filling) is Endorsement.HARDWARE
    with pytest.raises(Refused, match="not a DER certificate"):
        judged(ek_certificate().public_bytes(Encoding.DER) + filling + b"x")


def test_software_is_told_by_root_and_by_model() -> None:
    certificate = ek_certificate()
    assert judged(certificate, Anchors(software=ANCHORS.hardware, intermediates=ANCHORS.intermediates)) is (
        Endorsement.SOFTWARE
    )
    extensions = ek_extensions(name=(tpm_name("swtpm"), True))
    model = ISSUER.issue(EK.private.public_key(), extensions=extensions)
    assert judged(model) is Endorsement.SOFTWARE  # even under a root that was put into the wrong folder
    assert judged(model, Anchors()) is Endorsement.UNKNOWN  # what nobody vouches for proves not even that


@pytest.mark.parametrize(
    "anchors",
    [
        Anchors(),
        Anchors(hardware=(root().certificate,), intermediates=(ISSUER.certificate,)),  # same name, other key
        Anchors(hardware=(ROOT.certificate,)),
        Anchors(intermediates=(ISSUER.certificate, ROOT.certificate)),  # a helper is no anchor
        Anchors(hardware=(ek_certificate(),)),  # nor is the leaf itself
    ],
)
def test_no_way_to_a_root_is_unknown(anchors: Anchors) -> None:
    assert judged(ek_certificate(), anchors) is Endorsement.UNKNOWN


@pytest.mark.parametrize(
    "issuer",
    [
        below(ROOT, "i", [(x509.BasicConstraints(False, None), True), (usage(key_cert_sign=True), True)]),
        below(ROOT, "i", [(usage(key_cert_sign=True), True)]),
        below(ROOT, "i", [(x509.BasicConstraints(True, None), True), (usage(digital_signature=True), True)]),
        below(ROOT, "i", end=AT - timedelta(days=1)),
        below(ROOT, "i", start=AT + timedelta(days=1)),
        below(ROOT, "i", [*CA_EXTENSIONS, (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]),
        below(root("other root"), "i"),
    ],
)
def test_an_intermediate_that_may_not_issue_breaks_the_chain(issuer: Authority) -> None:
    anchors = replace(ANCHORS, intermediates=(issuer.certificate,))
    assert judged(ek_certificate(issuer), anchors) is Endorsement.UNKNOWN


def test_the_root_counts_too() -> None:
    for bad in (
        root(end=AT - timedelta(days=1)),
        root(extensions=[(x509.BasicConstraints(True, 0), True)]),
    ):
        issuer = below(bad, "i")
        anchors = Anchors(hardware=(bad.certificate,), intermediates=(issuer.certificate,))
        assert judged(ek_certificate(issuer), anchors) is Endorsement.UNKNOWN
    short = root(extensions=[(x509.BasicConstraints(True, 0), True)])
    assert judged(ek_certificate(short), Anchors(hardware=(short.certificate,))) is Endorsement.HARDWARE


def test_chains_are_bounded_and_loops_end() -> None:
    line = [ROOT]
    for number in range(MAX_DEPTH + 1):
        line.append(below(line[-1], f"level {number}"))
    for depth, expected in ((MAX_DEPTH - 1, Endorsement.HARDWARE), (MAX_DEPTH, Endorsement.UNKNOWN)):
        helpers = tuple(entry.certificate for entry in line[1 : depth + 1])
        assert judged(ek_certificate(line[depth]), replace(ANCHORS, intermediates=helpers)) is expected
    twins = [root("twin") for _ in range(3)]
    loop = replace(ANCHORS, intermediates=tuple(twin.certificate for twin in twins) * 50)
    assert judged(ek_certificate(twins[0]), loop) is Endorsement.UNKNOWN


@pytest.mark.parametrize(
    ("extensions", "words"),
    [
        (ek_extensions(usage=(usage(digital_signature=True), True)), "key usage does not fit"),
        (ek_extensions(extended=(x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), False)), "lacks 2.23.133.8.1"),
        (ek_extensions(basic=(x509.BasicConstraints(True, None), True)), "is a CA certificate"),
        (
            ek_extensions(other=(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\5\0"), True)),
            "critical extension 1.2.3.4 is unknown",
        ),
        (
            ek_extensions(other=(x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.15"), b"\5\0"), True), usage=None),
            "malformed",
        ),
    ],
)
def test_a_certificate_that_is_not_for_an_endorsement_key_is_refused(extensions: Extensions, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        judged(ISSUER.issue(EK.private.public_key(), extensions=extensions))
    assert caught.value.reason.code == "ek.certificate"


def test_a_certificate_for_another_key_or_time_is_refused() -> None:
    with pytest.raises(Refused, match="another key") as caught:
        judged(ek_certificate(), key=rsa_key(EK_ATTRIBUTES, decrypting=True))
    assert caught.value.reason.code == "ek.key"
    for more in ({"end": AT - timedelta(seconds=1)}, {"start": AT + timedelta(seconds=1)}):
        with pytest.raises(Refused, match="not valid at this time") as caught:
            judged(ek_certificate(**more))
        assert caught.value.reason.code == "ek.validity"


def test_a_weak_hash_is_not_a_chain() -> None:
    """No current library signs with SHA-1 or reads it gladly, so SHA-224 stands for what is too short."""
    assert judged(ek_certificate(algorithm=hashes.SHA224())) is Endorsement.UNKNOWN


def test_an_infineon_certificate_names_the_key_rsaes_oaep() -> None:
    """Infineon's EK certificates carry id-RSAES-OAEP in the key's algorithm, which cryptography does not read."""
    tbs = ek_certificate().tbs_certificate_bytes
    plain, oaep = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d010107")
    assert tbs.count(plain) == 1
    tbs = tbs.replace(plain, oaep)
    signature = ISSUER.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    bits = b"\x03" + bytes([len(signature) + 1]) + b"\0" + signature
    content = tbs + algorithm + bits
    certificate = b"\x30\x82" + struct.pack(">H", len(content)) + content
    with pytest.raises(Exception, match=r"."):
        x509.load_der_x509_certificate(certificate).public_key()
    assert judged(certificate) is Endorsement.HARDWARE
    with pytest.raises(Refused, match="another key"):
        judged(certificate, key=rsa_key(EK_ATTRIBUTES, decrypting=True))


def test_the_real_certificates_of_swtpm(box: tuple[Machine, KnownHost], made: Path) -> None:
    machine, _ = box
    anchors = authority(made)
    for template in ("RSA-2048", "P-384"):
        ek = machine.tools.endorsement_key(template)
        public = parse_public(ek.public)
        assert judge_endorsement(ek.certificate, public, anchors, AT) is Endorsement.SOFTWARE
        pretended = Anchors(hardware=anchors.software, intermediates=anchors.intermediates)
        assert judge_endorsement(ek.certificate, public, pretended, AT) is Endorsement.SOFTWARE
        with pytest.raises(Refused, match="another key"):
            judge_endorsement(ek.certificate, parse_public(EK.public), anchors, AT)
        for position in range(0, len(ek.certificate), 7):
            changed = bytearray(ek.certificate)
            changed[position] ^= 4
            try:
                found = judge_endorsement(bytes(changed), public, anchors, AT)
            except Refused:
                continue
            assert found is Endorsement.UNKNOWN


def test_a_policy_for_hardware_enrols_no_software_tpm(box: tuple[Machine, KnownHost], made: Path) -> None:
    _, known = box
    claim = Claim(known.name, known.ek_public, known.ek_certificate, known.ak_public)
    hardware = replace(policy_for(uki_boot()), endorsement=(Endorsement.HARDWARE,))
    with pytest.raises(Refused, match="software is not enough for policy box") as caught:
        challenge(claim, hardware, authority(made), at=AT)
    assert caught.value.reason.expected == "hardware"
    with pytest.raises(Refused, match="absent is not enough"):
        challenge(replace(claim, ek_certificate=b""), hardware, authority(made), at=AT)
    with pytest.raises(Refused, match="known with another TPM"):
        challenge(claim, policy_for(uki_boot()), authority(made), at=AT, before=replace(known, ek_public=b"other"))
    with pytest.raises(Refused, match="is not sign"):
        challenge(replace(claim, ak_public=claim.ek_public), hardware, authority(made), at=AT)


def test_anchors_are_read_from_their_folders(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no such folder"):
        load_anchors(tmp_path / "nowhere")
    assert load_anchors(tmp_path) == Anchors()
    for name in ("hardware", "intermediates"):
        (tmp_path / name).mkdir()
    (tmp_path / "hardware/a.pem").write_bytes(ROOT.certificate.public_bytes(Encoding.PEM) * 2)
    (tmp_path / "intermediates/b.der").write_bytes(ISSUER.certificate.public_bytes(Encoding.DER))
    anchors = load_anchors(tmp_path)
    assert anchors == Anchors(hardware=(ROOT.certificate,) * 2, intermediates=(ISSUER.certificate,))
    assert judged(ek_certificate(), anchors) is Endorsement.HARDWARE
    (tmp_path / "hardware/notes.txt").write_text("x")
    with pytest.raises(Refused, match=r"notes\.txt: does not end with"):
        load_anchors(tmp_path)
    (tmp_path / "hardware/notes.txt").rename(tmp_path / "hardware/notes.crt")
    with pytest.raises(Refused, match=r"notes\.crt: is not a certificate"):
        load_anchors(tmp_path)
    (tmp_path / "root.pem").write_bytes(b"")
    with pytest.raises(Refused, match=r"root\.pem: is not one of hardware, software, intermediates"):
        load_anchors(tmp_path)


WHOLE = ek_certificate().public_bytes(Encoding.DER)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_certificate_never_raises_anything_else(position: int, junk: bytes) -> None:
    damaged = WHOLE[:position] + junk + WHOLE[position + len(junk) :]
    try:
        found = judged(damaged)
    except Refused:
        return
    assert damaged == WHOLE or found is not Endorsement.HARDWARE


def test_keys_of_both_kinds_have_their_own_usage() -> None:
    assert isinstance(parse_public(EK.public).key, rsa.RSAPublicKey)
    with pytest.raises(Refused, match="key usage"):
        judged(ISSUER.issue(EK.private.public_key(), extensions=ek_extensions(usage=(usage(key_agreement=True), True))))
